"""From a request's body to jobs, and from a service's refusal to the caller's error."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import transaction
from django.http import HttpRequest

from inference_workers.contract import Sampling
from portal.api.attachment import Attachment
from portal.api.auth import Caller
from portal.api.disconnects import watch
from portal.api.errors import ApiError
from portal.api.following import Followed
from portal.api.logprobs import Vocabulary
from portal.api.schemas import ChatRequest, CompletionRequest, Request
from portal.api.shedding import taken
from portal.api.structured import Function
from portal.catalogue.models import CatalogueModel
from portal.jobs import services as jobs
from portal.jobs.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    JobRefused,
    ModelUnavailable,
)
from portal.jobs.inputs import Input, tokenizer_of
from portal.jobs.models import Job
from portal.metrics import JOBS_REFUSED
from portal.threads import in_thread
from portal.usage.acting import acting
from portal.usage.services import OverBudget

T = TypeVar("T")
SOURCE = "api"
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,120}")


@dataclass(frozen=True, slots=True)
class Order:
    """One job to make. ``echo``: repeat the prompt before the answer. ``guided``: the field that
    the sampling's guide was made of."""

    input: Input
    sampling: Sampling
    echo: bool = False
    guided: str | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """The jobs of a request, with what it takes to write their answer."""

    parts: list[Followed]
    vocabulary: Vocabulary
    attachment: Attachment


def chat_order(body: ChatRequest) -> Order:
    messages = [message.plain() for message in body.messages]
    offered = body.offered()
    return Order(
        jobs.ChatInput(messages, tools_of(offered)),
        body.sampling(),
        guided="tools" if offered else "response_format",
    )


def tools_of(functions: Sequence[Function]) -> list[dict[str, Any]]:
    """As chat templates know them."""
    return [
        {"type": "function", "function": function.model_dump(exclude_none=True)}
        for function in functions
    ]


def completion_orders(body: CompletionRequest) -> list[Order]:
    """One job for each prompt; each has ``n`` choices."""
    sampling = body.sampling()
    return [
        Order(
            jobs.TextInput(prompt) if isinstance(prompt, str) else jobs.TokenInput(prompt),
            sampling,
            bool(body.echo),
        )
        for prompt in body.prompts()
    ]


async def create(
    request: HttpRequest, caller: Caller, body: Request, orders: Sequence[Order], *, scored: bool
) -> Ordered:
    """All the jobs or none; raises ``ApiError``."""
    key = idempotency_key(request)
    (parts, vocabulary), attachment = await shielded(
        request,
        in_thread(_create)(caller, body, orders, key, scored=scored),
        lambda made: [part.job for part in made[0]],
        returning=bool(key),
    )
    return Ordered(parts, vocabulary, attachment)


async def shielded(
    request: HttpRequest,
    making: Awaitable[T],
    jobs_of: Callable[[T], Sequence[Job]],
    *,
    returning: bool,
) -> tuple[T, Attachment]:
    """What ``making`` makes, and the tie between its jobs and the caller.

    The thread that writes rows cannot be stopped half-way, so a caller who leaves meanwhile leaves
    jobs behind when it is done: they are cancelled then.
    """
    gone = watch(request)
    task = asyncio.ensure_future(making)
    try:
        made = await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(ApiError):
            late = await Attachment.make(jobs_of(await task), returning=returning, gone=gone)
            late.leave()
        raise
    taken(request)
    return made, await Attachment.make(jobs_of(made), returning=returning, gone=gone)


def _create(
    caller: Caller, body: Request, orders: Sequence[Order], key: str, *, scored: bool
) -> tuple[list[Followed], Vocabulary]:
    try:
        drafts = [
            jobs.prepare_job(
                team=caller.team,
                user=caller.user,
                source=SOURCE,
                model=body.model,
                input=order.input,
                sampling=order.sampling,
                seed=body.seed,
                idempotency_key=f"{key}.{number}" if key and number else key,
            )
            for number, order in enumerate(orders)
        ]
        # One job is a transaction by itself; around it another would cost two statements more.
        with transaction.atomic() if len(drafts) > 1 else nullcontext():
            made = [
                jobs.submit_job(draft) if isinstance(draft, jobs.Draft) else draft
                for draft in drafts
            ]
        vocabulary = tokenizer_of(made[0].model)
    except (JobRefused, OverBudget) as error:
        raise refusal(error, body.model) from error
    count = body.n or 1
    parts = [
        Followed(job, number * count, count, scored, _echoed(order, job, vocabulary), order.guided)
        for number, (job, order) in enumerate(zip(made, orders, strict=True))
    ]
    return parts, vocabulary


def _echoed(order: Order, job: Job, vocabulary: Vocabulary) -> str | None:
    if not order.echo:
        return None
    if isinstance(order.input, jobs.TextInput):
        return order.input.text
    return vocabulary.decode(job.input_ids)


def listed_models() -> list[CatalogueModel]:
    """The models that may serve, and that the acting key may use, by id."""
    ready = CatalogueModel.objects.filter(state=CatalogueModel.State.READY)
    found = ready.exclude(placement=CatalogueModel.Placement.OFF).order_by("id")
    key = acting()
    return [model for model in found if key is None or key.allows(model.pk)]


def no_such_model(model_id: str) -> ApiError:
    return ApiError(
        404,
        f"There is no model '{model_id[:80]}' here. GET /v1/models lists those there are.",
        code="model_not_found",
        param="model",
    )


def refusal(error: JobRefused | OverBudget, model: str) -> ApiError:
    """A service's refusal in OpenAI's words."""
    JOBS_REFUSED.labels("over_budget" if isinstance(error, OverBudget) else error.code).inc()
    if isinstance(error, OverBudget):
        retry = {"Retry-After": str(error.retry_after)}
        return ApiError(
            429, str(error), code="insufficient_quota", type="insufficient_quota", headers=retry
        )
    if error.code == "model_not_found":
        return no_such_model(model)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    status = 503
    if isinstance(error, IdempotencyConflict):
        status = 409
    elif isinstance(error, Forbidden):
        status = 403
    elif isinstance(error, InvalidRequest):
        status = 400
    param = "model" if isinstance(error, ModelUnavailable) else error.field
    return ApiError(status, error.message, code=error.code, param=param, headers=headers)


def uuid_or_none(text: str) -> uuid.UUID | None:
    """Ids come from outside in any shape; one that is no id is one that is not there."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def idempotency_key(request: HttpRequest) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if key and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise ApiError(
            400,
            "An Idempotency-Key has 1 to 120 visible ASCII characters.",
            code="invalid_idempotency_key",
        )
    return key
