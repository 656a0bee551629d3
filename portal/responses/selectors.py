"""Reads about stored responses; each takes the viewer and finds only what that viewer may see."""

from __future__ import annotations

import uuid

from llmasos.text.calls import CallReader
from portal.jobs import selectors as jobs
from portal.jobs.errors import InvalidRequest
from portal.jobs.models import Job
from portal.jobs.viewer import Viewer
from portal.responses.items import Message, called, messages_of
from portal.responses.models import PREFIX, Response

LONGEST_THREAD = 200
"""Turns of one conversation that are read; longer ones are refused."""


def response_for(viewer: Viewer, response_id: str) -> Response:
    """Raises ``Response.DoesNotExist`` also for somebody else's."""
    try:
        wanted = uuid.UUID(hex=response_id.removeprefix(PREFIX))
    except ValueError:
        raise Response.DoesNotExist from None
    rows = Response.objects.select_related("job", "job__model")
    return rows.get(job__in=jobs.visible_to(viewer).filter(pk=wanted))


def thread_of(response: Response) -> list[Response]:
    """The turns that lead to ``response``, itself the last, in one query.

    Raises:
        InvalidRequest: one of them was deleted, or there are too many.
    """
    rows = Response.objects.select_related("job").filter(thread=response.thread)
    rows = rows.order_by("-created_at")
    turns = {row.pk: row for row in rows[: LONGEST_THREAD * 10]}
    chain = [response]
    while (before := chain[-1].previous_id) is not None:
        if before not in turns or len(chain) >= LONGEST_THREAD:
            raise InvalidRequest(
                "previous_response_id",
                "An earlier response of this conversation was deleted, or there are more than "
                f"{LONGEST_THREAD}. Send the conversation as 'input' instead.",
            )
        chain.append(turns[before])
    return chain[::-1]


def conversation(response: Response) -> list[Message]:
    """What was said up to and with ``response``; instructions are not carried on.

    Raises:
        InvalidRequest: it is still being written, or a turn is gone.
    """
    messages = []
    for turn in thread_of(response):
        messages += messages_of(turn.input)
        messages += _answer(turn)
    return messages


def _answer(turn: Response) -> list[Message]:
    log = jobs.log_of(turn.job)
    if turn.job.state == Job.State.OPEN and not (log and log[-1].terminal):
        raise InvalidRequest(
            "previous_response_id",
            f"{turn} is still being written. Wait for its end, or cancel it.",
        )
    reader = CallReader(offered(turn))
    parts = [reader.push(jobs.text_of(log)), reader.end()]
    text = "".join(part.text for part in parts)
    if reader.called is not None:
        arguments = "".join(part.arguments for part in parts)
        return [called(call_id(turn.job.pk.hex), reader.called, arguments)]
    return [{"role": "assistant", "content": text}] if text else []


def offered(response: Response) -> list[str]:
    """Names of the tools that its answer might call."""
    return list(response.request.get("offered", ()))


def call_id(job_id: str) -> str:
    return f"call_{job_id}"
