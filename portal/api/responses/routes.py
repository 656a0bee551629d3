"""The routes of ``/v1/responses``."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from ninja import Path, Query, Router

from portal.api import creation
from portal.api.attachment import Attachment
from portal.api.auth import KEY
from portal.api.errors import ERRORS, ApiError, ErrorBody
from portal.api.following import failure
from portal.api.native.common import caller_of
from portal.api.responses import making
from portal.api.responses.answer import Answer, Event
from portal.api.responses.schemas import ResponseRequest
from portal.api.routes import ANSWERS, STREAMS
from portal.api.streaming import KEEPALIVE, STREAM_HEADERS, attached
from portal.jobs import services
from portal.jobs.errors import JobRefused
from portal.jobs.models import Job
from portal.jobs.reader import SILENT, Notice, events
from portal.responses.models import Response
from portal.responses.selectors import thread_of
from portal.responses.services import delete_response
from portal.threads import in_thread

logger = logging.getLogger(__name__)
router = Router(tags=["Responses"])
Id = Annotated[str, Path(max_length=64)]


@router.post("", auth=KEY, summary="Make a response", response=ANSWERS, openapi_extra=STREAMS)
async def make_response(request: HttpRequest, body: ResponseRequest) -> HttpResponseBase:
    """Answers when it is done, as it comes with stream, or at once with background.

    It is kept unless store is false; previous_response_id goes on from a kept one.
    """
    key = creation.idempotency_key(request)
    made, attachment = await creation.shielded(
        request,
        in_thread(making.make)(caller_of(request), body, key),
        lambda made: [] if body.background else [made.job],
        returning=bool(key),
    )
    if body.stream:
        return _stream(made.job, made.answer, attachment, after=-1)
    if body.background:
        return JsonResponse(made.answer.body())
    return JsonResponse(await _whole(made.job, made.answer, attachment))


@router.get(
    "/{response_id}", auth=KEY, summary="One response", response=ANSWERS, openapi_extra=STREAMS
)
async def read_response(
    request: HttpRequest,
    response_id: Id,
    stream: Annotated[bool, Query()] = False,
    starting_after: Annotated[int, Query(ge=-1, le=2**53)] = -1,
) -> HttpResponseBase:
    """With stream its events, those after number starting_after, until its end."""
    response = await in_thread(making.find)(caller_of(request), response_id)
    if stream:
        answer = await in_thread(making.answer_of)(response)
        return _stream(response.job, answer, None, after=starting_after)
    return JsonResponse(await in_thread(making.read)(response))


@router.delete("/{response_id}", auth=KEY, summary="Forget a response", response=ANSWERS)
async def forget_response(request: HttpRequest, response_id: Id) -> Any:
    """What was asked is deleted, and work on it stops."""
    response = await in_thread(making.find)(caller_of(request), response_id)
    said = str(response)
    await in_thread(_delete)(response)
    return {"id": said, "object": "response", "deleted": True}


@router.post("/{response_id}/cancel", auth=KEY, summary="Stop a response", response=ANSWERS)
async def cancel_response(request: HttpRequest, response_id: Id) -> Any:
    """For those made with background; others stop when their caller leaves."""
    response = await in_thread(making.find)(caller_of(request), response_id)
    if not response.background:
        raise ApiError(
            400,
            "Only a response made with 'background' can be cancelled; close the connection "
            "of any other.",
            code="invalid_value",
        )
    return await in_thread(_cancel)(response)


@router.get(
    "/{response_id}/input_items",
    auth=KEY,
    summary="What a response goes on from",
    response={200: dict[str, Any], ERRORS: ErrorBody},
)
async def input_items(
    request: HttpRequest,
    response_id: Id,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
    after: Annotated[str | None, Query(max_length=128)] = None,
) -> Any:
    """The items of its conversation, the newest first unless told otherwise."""
    response = await in_thread(making.find)(caller_of(request), response_id)
    return await in_thread(_items)(response, limit, order, after)


def _delete(response: Response) -> None:
    try:
        delete_response(response=response)
    except JobRefused as error:
        raise creation.refusal(error, response.job.model_id) from error


def _cancel(response: Response) -> dict[str, Any]:
    try:
        result = services.cancel_job(job=response.job)
    except JobRefused as error:
        raise creation.refusal(error, response.job.model_id) from error
    said = making.read(response)
    return said if result == "unknown" else said | {"status": "cancelled"}


def _items(response: Response, limit: int, order: str, after: str | None) -> dict[str, Any]:
    try:
        items = [item for turn in thread_of(response) for item in turn.input]
    except JobRefused:
        items = list(response.input)  # an earlier turn was deleted
    if order == "desc":
        items.reverse()
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise ApiError(
                400, "'after' is none of the items.", code="invalid_value", param="after"
            )
        items = items[ids.index(after) + 1 :]
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


async def _whole(job: Job, answer: Answer, attachment: Attachment) -> dict[str, Any]:
    """Waits for the end; raises ``ApiError`` when the job failed."""
    try:
        async with aclosing(_events(job, answer, -1)) as said:
            async for _ in said:
                pass
    except asyncio.CancelledError:
        attachment.leave()
        raise
    finally:
        await attachment.done()
    if answer.failed is not None:
        raise failure(answer.failed, "tools" if answer.offered else "text.format")
    return answer.body()


def _stream(
    job: Job, answer: Answer, attachment: Attachment | None, *, after: int
) -> StreamingHttpResponse:
    said = _frames(job, answer, after)
    frames: AsyncIterator[bytes] = said if attachment is None else attached(said, attachment)
    return StreamingHttpResponse(
        frames, content_type="text/event-stream; charset=utf-8", headers=STREAM_HEADERS
    )


async def _frames(job: Job, answer: Answer, after: int) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(_events(job, answer, after)) as said:
            async for event in said:
                yield KEEPALIVE if event is None else _frame(event)
    except Exception:
        logger.exception("stream_error")
        error = ApiError(500, "The stream broke on our side.", code="internal_error")
        yield _frame({"type": "error", "sequence_number": -1, **error.body()["error"]})


async def _events(job: Job, answer: Answer, after: int) -> AsyncGenerator[Event | None, None]:
    """Those with a number above ``after``; ``None`` says that there have been none for long."""
    for event in answer.begin():
        if event["sequence_number"] > after:
            yield event
    async with aclosing(events(job)) as items:
        async for item in items:
            if isinstance(item, Notice):
                if item == SILENT:
                    yield None
                continue
            for event in answer.take(item):
                if event["sequence_number"] > after:
                    yield event


def _frame(event: Event) -> bytes:
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event['type']}\ndata: {data}\n\n".encode()
