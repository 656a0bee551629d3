"""The bodies that the page sends, typed, and how a bad one is refused."""

from __future__ import annotations

import json
import uuid
from typing import Any, TypeVar

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest
from django.http.request import RawPostDataException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portal.jobs import guides
from portal.jobs.checks import clean_text
from portal.jobs.errors import InvalidRequest

BodyT = TypeVar("BodyT", bound="Body")


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationSettings(Body):
    """What the side panel sets. Ranges are checked where jobs are made."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    system: str = ""
    json_schema: str = ""

    def sampling(self) -> dict[str, Any]:
        """As ``create_job`` takes it: what was not set is left to its default.

        Raises:
            InvalidRequest: the JSON schema is none.
        """
        found = self.model_dump(exclude={"seed", "system", "json_schema"}, exclude_none=True)
        if self.json_schema.strip():
            found["guide"] = guides.of_schema(self.json_schema, "json_schema").model_dump()
        return found


class NewConversation(Body):
    mode: str
    model: str = Field(max_length=64)


class ChangeConversation(Body):
    title: str | None = None
    settings: GenerationSettings | None = None


class NewJob(Body):
    conversation: uuid.UUID
    text: str | None = None
    regenerate: uuid.UUID | None = None
    edit: uuid.UUID | None = None
    model: str = Field(max_length=64)
    mode: str
    settings: GenerationSettings = GenerationSettings()
    client_key: uuid.UUID | None = None


class CountTokens(Body):
    model: str = Field(max_length=64)
    text: str


def read_body(request: HttpRequest, form: type[BodyT]) -> BodyT:
    """The request's JSON as ``form``.

    Raises:
        InvalidRequest: names the field and says what it may be.
    """
    try:
        raw = request.body
    except RequestDataTooBig:
        raise InvalidRequest(
            None, "The request is too large. Shorten the prompt.", "request_too_large"
        ) from None
    except RawPostDataException:
        raise InvalidRequest(None, "Send JSON.", "bad_json") from None
    try:
        body = form.model_validate_json(raw)
    except ValidationError as error:
        _look_for_half_characters(raw)
        raise _refusal(error) from None
    _check_texts(body.model_dump(), None)
    return body


def _look_for_half_characters(raw: bytes) -> None:
    """pydantic calls JSON with half a surrogate pair invalid; say what is wrong with it."""
    try:
        _check_texts(json.loads(raw), None)
    except (ValueError, RecursionError):
        return


def _refusal(error: ValidationError) -> InvalidRequest:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return InvalidRequest(None, "The request is not valid JSON.", "bad_json")
    where = [str(part)[:60] for part in problem["loc"]]
    inner = where[1:] if where[:1] == ["settings"] and len(where) > 1 else where
    field = inner[0] if inner else None
    return InvalidRequest(field, f"{'.'.join(where) or 'The request'}: {problem['msg']}.")


def _check_texts(value: Any, field: str | None) -> None:
    """NUL characters and half surrogates go nowhere, neither to a tokenizer nor to a database."""
    if isinstance(value, str):
        clean_text(value, field or "body")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(inner, name)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_texts(inner, field)
