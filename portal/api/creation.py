"""From a request's body to jobs, and from a service's refusal to the caller's error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from channels.db import database_sync_to_async
from django.http import HttpRequest

from inference_workers.contract import Sampling
from llmasos.text.tokenizer import Tokenizer
from portal.api.attachment import Attachment, leave
from portal.api.auth import Caller
from portal.api.disconnects import watch
from portal.api.errors import ApiError
from portal.api.following import Followed
from portal.api.logprobs import Vocabulary
from portal.api.schemas import ChatRequest, CompletionRequest, Request
from portal.catalogue import selectors
from portal.catalogue.models import CatalogueModel
from portal.jobs import services as jobs
from portal.jobs.models import Job

SOURCE = "api"
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,120}")


@dataclass(frozen=True, slots=True)
class Order:
    """One job to make. ``echo``: repeat the prompt before the answer."""

    input: jobs.Input
    sampling: Sampling
    field: str
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Ordered:
    """The jobs of a request, with what it takes to write their answer."""

    parts: list[Followed]
    vocabulary: Vocabulary
    attachment: Attachment


def chat_order(body: ChatRequest) -> Order:
    messages = [message.plain() for message in body.messages]
    return Order(jobs.ChatInput(messages), body.sampling(), "messages")


def completion_orders(body: CompletionRequest) -> list[Order]:
    """One job for each prompt; each has ``n`` choices."""
    sampling = body.sampling()
    return [
        Order(
            jobs.TextInput(prompt) if isinstance(prompt, str) else jobs.TokenInput(prompt),
            sampling,
            "prompt",
            bool(body.echo),
        )
        for prompt in body.prompts()
    ]


async def create(
    request: HttpRequest, caller: Caller, body: Request, orders: Sequence[Order], *, scored: bool
) -> Ordered:
    """All the jobs or none; raises ``ApiError``.

    The thread that writes rows cannot be stopped half-way, so a caller who leaves meanwhile leaves
    jobs behind when it is done: they are cancelled then.
    """
    key = _idempotency_key(request)
    gone = watch(request)
    making = asyncio.ensure_future(
        database_sync_to_async(_create)(caller, body, orders, key, scored=scored)
    )
    try:
        parts, vocabulary = await asyncio.shield(making)
    except asyncio.CancelledError:
        if gone():
            made, _ = await making
            await leave([part.job for part in made], returning=False)
        raise
    attachment = await Attachment.make(
        [part.job for part in parts], returning=bool(key), gone=gone
    )
    return Ordered(parts, vocabulary, attachment)


def _create(
    caller: Caller, body: Request, orders: Sequence[Order], key: str, *, scored: bool
) -> tuple[list[Followed], Vocabulary]:
    made: list[Job] = []
    try:
        for number, order in enumerate(orders):
            made.append(
                jobs.create_job(
                    team=caller.team,
                    user=caller.user,
                    source=SOURCE,
                    model=body.model,
                    input=order.input,
                    sampling=order.sampling,
                    seed=body.seed,
                    idempotency_key=f"{key}.{number}" if key and number else key or None,
                )
            )
    except jobs.JobError as error:
        for job in made:
            jobs.cancel_job(job=job)
        raise refusal(error, orders[len(made)].field, body.model) from error
    model = selectors.servable(body.model)
    vocabulary = Tokenizer.load(selectors.prepared_folder(model))
    count = body.n or 1
    parts = [
        Followed(job, number * count, count, scored, _echoed(order, job, vocabulary))
        for number, (job, order) in enumerate(zip(made, orders, strict=True))
    ]
    return parts, vocabulary


def _echoed(order: Order, job: Job, tokenizer: Tokenizer) -> str | None:
    if not order.echo:
        return None
    if isinstance(order.input, jobs.TextInput):
        return order.input.text
    return tokenizer.decode(job.input_ids)
