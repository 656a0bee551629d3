"""``/v1``: the routes that OpenAI's clients know, over the house's jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from ninja import Router
from pydantic import BaseModel, ConfigDict

from portal.api import creation, embeddings
from portal.api.answers import ChatForm, CompletionForm, Form
from portal.api.auth import KEY, Caller
from portal.api.creation import Ordered
from portal.api.errors import ERRORS, ErrorBody
from portal.api.schemas import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from portal.api.streaming import stream_response
from portal.api.whole import whole_response
from portal.catalogue.models import CatalogueModel
from portal.threads import in_thread

api = Router(tags=["OpenAI"])
STREAMS = {"responses": {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}}
"""For the description of a route that streams when it is asked to."""


class Body(BaseModel):
    """OpenAI's documentation says what is in it."""

    model_config = ConfigDict(extra="allow")

    object: str


ANSWERS: dict[Any, Any] = {200: Body, ERRORS: ErrorBody}


@api.get("/models", auth=KEY, summary="The models that can be asked", response=ANSWERS)
async def models(request: HttpRequest) -> dict[str, Any]:
    listed = await in_thread(creation.listed_models)()
    return {"object": "list", "data": [_model(model) for model in listed]}


@api.get("/models/{path:model_id}", auth=KEY, summary="One model", response=ANSWERS)
async def model(request: HttpRequest, model_id: str) -> dict[str, Any]:
    listed = await in_thread(creation.listed_models)()
    for found in listed:
        if found.id == model_id:
            return _model(found)
    raise creation.no_such_model(model_id)


@api.post(
    "/chat/completions",
    auth=KEY,
    summary="Answer a conversation",
    response=ANSWERS,
    openapi_extra=STREAMS,
)
async def chat_completions(request: HttpRequest, body: ChatRequest) -> HttpResponseBase:
    orders = [creation.chat_order(body)]
    form = partial(ChatForm, tools=[function.name for function in body.offered()])
    return await _answer(request, body, orders, form, "chatcmpl", bool(body.logprobs))


@api.post(
    "/completions", auth=KEY, summary="Continue a text", response=ANSWERS, openapi_extra=STREAMS
)
async def completions(request: HttpRequest, body: CompletionRequest) -> HttpResponseBase:
    orders = creation.completion_orders(body)
    return await _answer(request, body, orders, CompletionForm, "cmpl", body.logprobs is not None)


@api.post("/embeddings", auth=KEY, summary="Vectors of texts", response=ANSWERS)
async def embed(request: HttpRequest, body: EmbeddingRequest) -> HttpResponseBase:
    """Of each text one, 1 long: the nearer two vectors, the nearer the meanings of their texts."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    return await embeddings.answer(request, caller, body)


async def _answer(
    request: HttpRequest,
    body: Request,
    orders: list[creation.Order],
    form_of: Callable[..., Form],
    prefix: str,
    scored: bool,
) -> HttpResponseBase:
    """Makes the jobs, then gives their answer in one piece or as it comes."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    ordered: Ordered = await creation.create(request, caller, body, orders, scored=scored)
    form = form_of(
        id=f"{prefix}-{ordered.parts[0].job.id.hex}",
        created=int(time.time()),
        model=body.model,
        vocabulary=ordered.vocabulary,
        scored=scored,
        usage_in_chunks=body.usage_wanted,
    )
    if body.stream:
        return stream_response(
            form, ordered.parts, ordered.attachment, usage_wanted=body.usage_wanted
        )
    return await whole_response(form, ordered.parts, ordered.attachment)


def _model(model: CatalogueModel) -> dict[str, Any]:
    """OpenAI's four fields, and what a caller may want to know besides."""
    return {
        "id": model.id,
        "object": "model",
        "created": int((model.prepared_at or model.created_at).timestamp()),
        "owned_by": "llmasos",
        "name": model.name,
        "kind": model.kind,
        "context_length": model.context_length,
        "parameters": model.parameters,
        "dimensions": model.dimensions or None,
        "licence": model.licence,
    }
