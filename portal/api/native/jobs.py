"""``/api/v1/jobs``: make, list, read, cancel and follow jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from ninja import Path, Query, Router, Status

from inference_workers.contract import Entry
from portal.api import creation
from portal.api.auth import KEY, Caller
from portal.api.errors import ERRORS, ApiError, ErrorBody
from portal.api.native.common import caller_of, not_found, viewer_of
from portal.api.native.schemas import Cancelling, JobDetail, JobList, NewJob
from portal.api.streaming import KEEPALIVE, STREAM_HEADERS
from portal.jobs import selectors, services
from portal.jobs.errors import JobRefused
from portal.jobs.inputs import Input
from portal.jobs.models import Job
from portal.jobs.reader import SILENT, Notice, events
from portal.threads import in_thread
from portal.usage.services import OverBudget

router = Router(tags=["Jobs"])
PAGE = 50
MAX_SEQ = 2**53

JobId = Annotated[str, Path(max_length=64)]


@router.post("", auth=KEY, summary="Make a job", response={201: JobDetail, ERRORS: ErrorBody})
async def make_job(request: HttpRequest, body: NewJob) -> Any:
    """Queues the work and answers at once; read the job, or follow its events, for what it says.

    With an ``Idempotency-Key`` the same request makes one job, however often it is sent.
    """
    key = creation.idempotency_key(request)
    return Status(201, await in_thread(_make)(caller_of(request), body, key))


def _make(caller: Caller, body: NewJob, key: str) -> dict[str, Any]:
    try:
        job = services.create_job(
            team=caller.team,
            user=caller.user,
            source=creation.SOURCE,
            model=body.model,
            input=_input(body),
            sampling=body.sampling,
            seed=body.seed,
            idempotency_key=key,
        )
    except (JobRefused, OverBudget) as error:
        raise creation.refusal(error, body.model) from error
    return _detail(job)


def _input(body: NewJob) -> Input:
    given = [name for name in ("prompt", "messages", "tokens") if getattr(body, name) is not None]
    if len(given) != 1:
        raise ApiError(
            400,
            "Give exactly one of 'prompt', 'messages' and 'tokens'.",
            code="invalid_value",
            param=given[1] if given else "prompt",
        )
    if body.messages is not None:
        return services.ChatInput([message.model_dump() for message in body.messages])
    if body.tokens is not None:
        return services.TokenInput(body.tokens)
    return services.TextInput(body.prompt or "")


@router.get("", auth=KEY, summary="The team's jobs", response={200: JobList, ERRORS: ErrorBody})
async def list_jobs(
    request: HttpRequest,
    limit: Annotated[int, Query(ge=1, le=200)] = PAGE,
    before: Annotated[str | None, Query(max_length=64)] = None,
    state: Annotated[Job.State | None, Query()] = None,
) -> Any:
    """Newest first, ``limit`` at a time; ``before`` is the last page's ``next``."""
    return await in_thread(_page)(caller_of(request), limit, before, state)


def _page(
    caller: Caller, limit: int, before: str | None, state: Job.State | None
) -> dict[str, Any]:
    try:
        rows = selectors.page(viewer_of(caller), limit=limit + 1, before=before, state=state)
    except Job.DoesNotExist:
        raise ApiError(
            400, "'before' is no job of this team.", code="invalid_value", param="before"
        ) from None
    more = len(rows) > limit
    shown = rows[:limit]
    return {
        "jobs": [_summary(job) for job in shown],
        "next": shown[-1].pk.hex if more else None,
    }


@router.get("/{job_id}", auth=KEY, summary="One job", response={200: JobDetail, ERRORS: ErrorBody})
async def read_job(request: HttpRequest, job_id: JobId) -> Any:
    job = await _find(request, job_id)
    return await in_thread(_detail)(job)


@router.post(
    "/{job_id}/cancel",
    auth=KEY,
    summary="Stop a job",
    response={200: Cancelling, ERRORS: ErrorBody},
)
async def cancel_job(request: HttpRequest, job_id: JobId) -> Any:
    """What it made until then is kept, and billed."""
    job = await _find(request, job_id)
    try:
        result = await in_thread(services.cancel_job)(job=job)
    except JobRefused as error:
        raise creation.refusal(error, job.model_id) from error
    return {"id": job.pk.hex, "result": result}


@router.get(
    "/{job_id}/events",
    auth=KEY,
    summary="Follow a job",
    response={200: None, 204: None, ERRORS: ErrorBody},
    openapi_extra={"responses": {200: {"content": {"text/event-stream": {"schema": {}}}}}},
)
async def job_events(
    request: HttpRequest,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
) -> HttpResponseBase:
    """The job's log as server-sent events, from the entry behind ``after`` to its end.

    An event's ``id`` is its entry's number: a browser's EventSource that comes back sends it as
    ``Last-Event-ID``, and goes on behind it. Following is watching: leaving cancels nothing. 204
    says that nothing more will come, which stops an EventSource.
    """
    job = await _find(request, job_id)
    seen = max(after, _last_event_id(request))
    if job.state != Job.State.OPEN and not await in_thread(selectors.goes_on)(job, seen):
        return HttpResponse(status=204)
    return StreamingHttpResponse(
        _frames(job, seen),
        content_type="text/event-stream; charset=utf-8",
        headers=STREAM_HEADERS,
    )


def _last_event_id(request: HttpRequest) -> int:
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return 0
    if not (given.isascii() and given.isdecimal() and int(given[:17]) <= MAX_SEQ):
        raise ApiError(400, "Last-Event-ID is the number of an entry.", code="invalid_value")
    return int(given[:17])


async def _frames(job: Job, after: int) -> AsyncIterator[bytes]:
    async with aclosing(events(job, after)) as items:
        async for item in items:
            yield _notice(item) if isinstance(item, Notice) else _entry(item)


def _entry(entry: Entry) -> bytes:
    data = entry.event.model_dump(mode="json", exclude_none=True) | {"at": entry.at}
    return f"id: {entry.seq}\nevent: {entry.event.type}\ndata: {_json(data)}\n\n".encode()


def _notice(notice: Notice) -> bytes:
    """Why nothing comes; without an id, so that nobody resumes from it."""
    if notice == SILENT:
        return KEEPALIVE
    data = {"state": notice.state, "position": notice.position, "fraction": notice.fraction}
    return f"event: notice\ndata: {_json(data)}\n\n".encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def _find(request: HttpRequest, job_id: str) -> Job:
    try:
        return await selectors.ajob_for(viewer_of(caller_of(request)), job_id)
    except Job.DoesNotExist:
        raise not_found("job") from None


def _summary(job: Job) -> dict[str, Any]:
    failed = job.error_code or job.error_message
    return {
        "id": job.pk.hex,
        "model": job.model_id,
        "source": job.source,
        "state": job.state,
        "reason": job.reason or None,
        "error": {"code": job.error_code, "message": job.error_message} if failed else None,
        "usage": {
            name: getattr(job, name)
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
        },
        "times": {
            name: getattr(job, f"{name}_at")
            for name in ("queued", "claimed", "first_token", "last_token", "recorded")
        },
    }


def _detail(job: Job) -> dict[str, Any]:
    outputs, last_seq = selectors.outputs(job)
    return _summary(job) | {
        "seed": job.seed,
        "sampling": job.sampling,
        "outputs": outputs,
        "last_seq": last_seq,
    }
