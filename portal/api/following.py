"""A job's log, read as the pieces of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from inference_workers.contract import Cancelled, Delta, Failed, Finished, TokenLogprob, Usage
from portal.api.answers import Piece
from portal.api.errors import ApiError
from portal.api.logprobs import Scored
from portal.jobs import reader
from portal.jobs.models import Job

Step = Piece | Usage | reader.Notice

FAILED_STATUS = {
    "worker_lost": 503,
    "model_changed": 503,
    "model_unavailable": 503,
    "out_of_memory": 503,
    "deadline_exceeded": 504,
}
"""Statuses of a job that failed; a code that is not here, and not the caller's fault, is a 500."""
GUIDE_CODES = frozenset({"guide_unsupported", "guide_too_complex", "invalid_guide"})
"""What a worker says of a guide that it can't follow."""
CALLERS_FAULT = GUIDE_CODES | {
    "invalid_request",
    "context_length_exceeded",
    "cache_too_small",
    "too_large",
}


@dataclass(frozen=True, slots=True)
class Followed:
    """One job of a request: its choices are ``first`` … ``first + count - 1`` of the answer.

    ``echo`` is the prompt's text where the caller asked to have it repeated; ``guided`` the field
    that the answer's guide was made of.
    """

    job: Job
    first: int
    count: int
    scored: bool
    echo: str | None = None
    guided: str | None = None


async def follow(part: Followed) -> AsyncGenerator[Step, None]:
    """Pieces as they are made, then the job's usage; raises ``ApiError`` when it failed."""
    echoed = part.echo is None
    async for item in reader.events(part.job):
        if isinstance(item, reader.Notice):
            yield item
            continue
        event = item.event
        if isinstance(event, Delta | Finished) and not echoed:
            echoed = True
            scores = event.prompt_logprobs if isinstance(event, Delta) else None
            for piece in _echo(part, scores):
                yield piece
        if isinstance(event, Delta):
            yield _piece(part, event)
        elif isinstance(event, Finished):
            yield event.usage
            return
        elif isinstance(event, Failed):
            raise failure(event, part.guided)
        elif isinstance(event, Cancelled):
            raise failure(event)


def _piece(part: Followed, event: Delta) -> Piece:
    tokens = tuple(Scored.of(token) for token in event.logprobs or ()) if part.scored else ()
    return Piece(part.first + event.choice, event.text, tokens, event.finish)


def _echo(part: Followed, scores: Sequence[TokenLogprob] | None) -> list[Piece]:
    """The prompt, once for each choice; nothing scores its first token."""
    tokens: tuple[Scored, ...] = ()
    if part.scored and scores is not None:
        head = Scored(part.job.input_ids[0], None)
        tokens = (head, *(Scored.of(token) for token in scores))
    return [Piece(part.first + index, part.echo or "", tokens) for index in range(part.count)]


def failure(event: Failed | Cancelled, guided: str | None = None) -> ApiError:
    """A job's bad end as an error; ``guided`` names the field that a guide was made of."""
    if isinstance(event, Cancelled):
        message = "The request was cancelled before it finished; send it again."
        return ApiError(409, message, code="cancelled")
    if event.code in CALLERS_FAULT:
        param = guided if event.code in GUIDE_CODES else None
        return ApiError(400, event.message, code=event.code, param=param)
    status = FAILED_STATUS.get(event.code, 500)
    headers = {"Retry-After": "1"} if status == 503 else None
    return ApiError(status, event.message, code=event.code, headers=headers)


async def follow_all(parts: Sequence[Followed]) -> AsyncGenerator[Step, None]:
    """The parts' steps as they come, whichever moves first; ends when all have ended."""
    if len(parts) == 1:
        async with aclosing(follow(parts[0])) as only:
            async for step in only:
                yield step
        return
    steps: asyncio.Queue[Step | ApiError | None] = asyncio.Queue(maxsize=256)
    readers = [asyncio.create_task(_pour(part, steps)) for part in parts]
    try:
        running = len(readers)
        while running:
            found = await steps.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                running -= 1
            else:
                yield found
    finally:
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _pour(part: Followed, steps: asyncio.Queue[Step | ApiError | None]) -> None:
    try:
        async with aclosing(follow(part)) as found:
            async for step in found:
                await steps.put(step)
        await steps.put(None)
    except ApiError as error:
        await steps.put(error)
    except Exception as error:
        await steps.put(ApiError(500, "Reading the answer failed; try again.", code="internal"))
        raise error
