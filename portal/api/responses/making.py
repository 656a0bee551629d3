"""From a request's body to a response and its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from portal.api import creation
from portal.api.auth import Caller
from portal.api.errors import ApiError, from_validation
from portal.api.native.common import not_found, viewer_of
from portal.api.responses.answer import Answer
from portal.api.responses.schemas import ResponseRequest
from portal.api.structured import Structured
from portal.jobs import selectors as jobs
from portal.jobs import services
from portal.jobs.errors import JobRefused
from portal.jobs.inputs import tokenizer_of
from portal.jobs.models import Job
from portal.responses.items import messages_of
from portal.responses.models import Response, public_id
from portal.responses.selectors import conversation, offered, response_for
from portal.responses.services import create_response
from portal.usage.services import OverBudget


@dataclass(frozen=True, slots=True)
class Made:
    """A job, and what writes its answer."""

    job: Job
    answer: Answer


def make(caller: Caller, body: ResponseRequest, key: str) -> Made:
    """Raises ``ApiError``."""
    try:
        structured = body.structured()
    except ValidationError as error:
        problems = [{**found, "loc": ("body", "body", *found["loc"])} for found in error.errors()]
        raise from_validation(problems) from None
    try:
        return _make(caller, body, structured, key)
    except (JobRefused, OverBudget) as error:
        raise creation.refusal(error, body.model) from error


def _make(caller: Caller, body: ResponseRequest, structured: Structured, key: str) -> Made:
    previous = _previous(caller, body)
    items = body.items()
    messages = conversation(previous) if previous else []
    if body.instructions:
        messages.insert(0, {"role": "system", "content": body.instructions})
    draft = services.prepare_job(
        team=caller.team,
        user=caller.user,
        source=creation.SOURCE,
        model=body.model,
        input=services.ChatInput(
            [*messages, *messages_of(items)], creation.tools_of(structured.offered())
        ),
        sampling=body.sampling(structured),
        seed=body.seed,
        idempotency_key=key,
    )
    request = body.said_again()
    if body.store is False:
        job = services.submit_job(draft) if isinstance(draft, services.Draft) else draft
        unsaved = Response(
            job=job, previous_id=previous.pk if previous else None, input=items, request=request,
            created_at=job.queued_at,
        )  # fmt: skip
        return Made(job, answer_of(unsaved))
    made = create_response(
        draft=draft,
        previous=previous,
        background=bool(body.background),
        input=_numbered(items, draft.job if isinstance(draft, services.Draft) else draft),
        request=request,
    )
    return Made(made.job, answer_of(made))


def _previous(caller: Caller, body: ResponseRequest) -> Response | None:
    if body.previous_response_id is None:
        return None
    try:
        return response_for(viewer_of(caller), body.previous_response_id)
    except Response.DoesNotExist:
        raise ApiError(
            404,
            f"There is no response '{body.previous_response_id}'. Send the conversation as "
            "'input' instead.",
            code="previous_response_not_found",
            param="previous_response_id",
        ) from None


def _numbered(items: list[dict[str, Any]], job: Job) -> list[dict[str, Any]]:
    """With ids, which those that come from an earlier answer have already."""
    return [
        {"id": f"msg_{job.pk.hex}_{number}", "status": "completed", **item}
        for number, item in enumerate(items)
    ]


def find(caller: Caller, response_id: str) -> Response:
    try:
        return response_for(viewer_of(caller), response_id)
    except Response.DoesNotExist:
        raise not_found("response") from None


def answer_of(response: Response) -> Answer:
    """What will write the response, with nothing read yet."""
    job, request = response.job, dict(response.request)
    scored = request.pop("scored", False)
    request.pop("offered", None)
    previous = response.previous_id
    return Answer(
        job_id=job.pk.hex,
        asked={
            "id": public_id(job.pk.hex),
            "object": "response",
            "created_at": int(response.created_at.timestamp()),
            "model": job.model_id,
            "background": response.background,
            "previous_response_id": public_id(previous.hex) if previous else None,
            "max_tool_calls": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "truncation": "disabled",
            **request,
        },
        background=response.background,
        offered=offered(response),
        vocabulary=tokenizer_of(job.model) if scored else None,
    )


def read(response: Response) -> dict[str, Any]:
    """The response as it stands; the log knows the end a moment before the row does."""
    answer = answer_of(response)
    for entry in jobs.log_of(response.job):
        answer.take(entry)
    job = response.job
    if not answer.ended and job.state == Job.State.FAILED:
        answer.fail(job.error_message)
    elif not answer.ended and job.state == Job.State.CANCELLED:
        answer.status = "cancelled"
    return answer.body()
