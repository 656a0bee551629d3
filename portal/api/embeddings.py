"""``/v1/embeddings``: from a body to a job, and from its log to vectors in OpenAI's form."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse

from inference_workers.contract import Cancelled, Embedded, Failed, Finished, Sampling, Usage
from llmasos.text.vectors import unpack
from portal.api import creation
from portal.api.attachment import Attachment
from portal.api.auth import Caller
from portal.api.following import failure
from portal.api.schemas import EmbeddingRequest
from portal.jobs import reader
from portal.jobs import services as jobs
from portal.jobs.errors import JobRefused
from portal.jobs.models import Job
from portal.threads import in_thread
from portal.usage.services import OverBudget

NOTHING = Sampling(max_tokens=0)
"""An encoder generates nothing."""


@dataclass(slots=True)
class Vectors:
    """A job's vectors by the number of their text, base64, and what they cost."""

    found: dict[int, str] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


async def answer(request: HttpRequest, caller: Caller, body: EmbeddingRequest) -> HttpResponse:
    """Make the job and wait for its end. Raises ``ApiError``."""
    key = creation.idempotency_key(request)
    job, attachment = await creation.shielded(
        request,
        in_thread(_make)(caller, body, key),
        lambda made: [made],
        returning=bool(key),
    )
    vectors = await _follow(job, attachment)
    return await in_thread(_written)(body, vectors)


def _make(caller: Caller, body: EmbeddingRequest, key: str) -> Job:
    try:
        return jobs.create_job(
            team=caller.team,
            user=caller.user,
            source=creation.SOURCE,
            model=body.model,
            input=jobs.EmbeddingInput(body.texts(), alone=body.alone, dimensions=body.dimensions),
            sampling=NOTHING,
            idempotency_key=key,
        )
    except (JobRefused, OverBudget) as error:
        raise creation.refusal(error, body.model) from error


async def _follow(job: Job, attachment: Attachment) -> Vectors:
    """All of the job's vectors; raises ``ApiError`` when it ends without them."""
    vectors = Vectors()
    try:
        async with aclosing(reader.events(job)) as items:
            async for item in items:
                event = None if isinstance(item, reader.Notice) else item.event
                if isinstance(event, Embedded):
                    vectors.found |= zip(event.texts, event.vectors, strict=True)
                elif isinstance(event, Finished):
                    vectors.usage = event.usage
                elif isinstance(event, Failed | Cancelled):
                    raise failure(event)
    except asyncio.CancelledError:
        attachment.leave()
        raise
    finally:
        await attachment.done()
    return vectors


def _written(body: EmbeddingRequest, vectors: Vectors) -> HttpResponse:
    """In a thread: thousands of vectors as decimal numbers take a while."""
    as_text = body.encoding_format == "base64"
    data: list[dict[str, Any]] = [
        {
            "object": "embedding",
            "index": number,
            "embedding": vector if as_text else unpack(vector),
        }
        for number, vector in sorted(vectors.found.items())
    ]
    used = vectors.usage.prompt_tokens
    content = {
        "object": "list",
        "data": data,
        "model": body.model,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }
    return HttpResponse(json.dumps(content, separators=(",", ":")), content_type="application/json")
