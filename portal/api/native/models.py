"""``/api/v1/models`` and what their tokenizers say."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Path, Router

from llmasos.errors import LLMasOSError
from llmasos.text.tokenizer import Tokenizer
from portal.api import creation
from portal.api.auth import KEY
from portal.api.errors import ERRORS, ApiError, ErrorBody
from portal.api.native.schemas import (
    Detokenize,
    Detokenized,
    ModelDetail,
    ModelList,
    Tokenize,
    Tokens,
)
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import ModelUnavailable, UnknownModel, servable
from portal.jobs.checks import clean_text
from portal.jobs.errors import JobRefused
from portal.jobs.inputs import tokenizer_of
from portal.threads import in_thread

router = Router(tags=["Models"])


@router.get(
    "/models", auth=KEY, summary="The models that can be asked",
    response={200: ModelList, ERRORS: ErrorBody},
)  # fmt: skip
async def list_models(request: HttpRequest) -> Any:
    listed = await in_thread(creation.listed_models)()
    return {"models": [_model(model) for model in listed]}


@router.get(
    "/models/{model_id}", auth=KEY, summary="One model",
    response={200: ModelDetail, ERRORS: ErrorBody},
)  # fmt: skip
async def read_model(request: HttpRequest, model_id: Annotated[str, Path(max_length=200)]) -> Any:
    for model in await in_thread(creation.listed_models)():
        if model.pk == model_id:
            return _model(model)
    raise creation.no_such_model(model_id)


@router.post(
    "/tokenize", auth=KEY, summary="Text to tokens", response={200: Tokens, ERRORS: ErrorBody}
)
async def tokenize(request: HttpRequest, body: Tokenize) -> Any:
    """Exactly the tokens that the text has as a prompt."""
    return await in_thread(_tokenize)(body)


@router.post(
    "/detokenize", auth=KEY, summary="Tokens to text",
    response={200: Detokenized, ERRORS: ErrorBody},
)  # fmt: skip
async def detokenize(request: HttpRequest, body: Detokenize) -> Any:
    """Tokens that open or end a text have none themselves."""
    return await in_thread(_detokenize)(body)


def _tokenize(body: Tokenize) -> dict[str, Any]:
    tokenizer = _tokenizer(body.model)
    try:
        ids = tokenizer.encode(clean_text(body.text, "text")) if body.text else []
    except JobRefused as error:
        raise creation.refusal(error, body.model) from error
    except LLMasOSError as error:
        raise _refused(error, "text") from error
    return {"count": len(ids), "tokens": ids, "pieces": [tokenizer.token_text(i) for i in ids]}


def _detokenize(body: Detokenize) -> dict[str, Any]:
    try:
        return {"text": _tokenizer(body.model).decode(body.tokens)}
    except LLMasOSError as error:
        raise _refused(error, "tokens") from error


def _tokenizer(model_id: str) -> Tokenizer:
    try:
        return tokenizer_of(_servable(model_id))
    except JobRefused as error:
        raise creation.refusal(error, model_id) from error


def _servable(model_id: str) -> CatalogueModel:
    try:
        return servable(model_id)
    except UnknownModel:
        raise creation.no_such_model(model_id) from None
    except ModelUnavailable as error:
        raise ApiError(
            503, error.message, code=error.code, param="model", headers={"Retry-After": "30"}
        ) from error


def _refused(error: LLMasOSError, param: str) -> ApiError:
    return ApiError(400, error.message, code="invalid_value", param=param)


def _model(model: CatalogueModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in ModelDetail.model_fields}
