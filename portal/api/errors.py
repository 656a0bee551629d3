"""What a caller of ``/v1`` is told when something goes wrong, in OpenAI's form.

Every refusal is one ``ApiError``, written ``{"error": {"message", "type", "param", "code"}}``. The
message tells the caller what to do next; ``param`` names the field of the request
(``messages[0].content``) or is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


BRANCHES = {"str", "int", "list", "dict", "float", "bool"} | {
    "message", "function_call", "function_call_output",
}  # fmt: skip
"""What pydantic calls the alternatives of a field."""
ERRORS = frozenset({400, 401, 403, 404, 409, 413, 415, 429, 503})
"""Statuses that a route may refuse with, for its description."""


class ErrorDetail(BaseModel):
    message: str = Field(description="What is wrong, and what to do.")
    type: str
    param: str | None = Field(description="The field of the request that is meant.")
    code: str = Field(description="For programs.")


class ErrorBody(BaseModel):
    error: ErrorDetail


class ApiError(Exception):
    """One refusal. ``headers`` go onto the response (``Retry-After``)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type or TYPES.get(
            status, "server_error" if status >= 500 else "invalid_request_error"
        )
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def from_validation(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's complaints, about the field that it names.

    Of a field with alternatives, the one that went deepest: it is the form that was meant.
    """
    first = _where(problems[0])[:1]
    problem = max((p for p in problems if _where(p)[:1] == first), key=lambda p: len(p["loc"]))
    where = _where(problem)
    param = _path(where)
    kind = problem["type"]
    code = "invalid_value"
    if kind in ("extra_forbidden", "none_required"):
        code, text = "unsupported_parameter", "is not supported here; leave it out."
    elif kind == "missing":
        code, text = "missing_required_parameter", "is missing; add it to the request."
    elif kind == "string_unicode":
        text = "holds a lone surrogate; send well-formed Unicode."
    else:
        text = f"is refused: {_sentence(problem['msg'])}"
    if param is None:
        if kind == "missing":
            text = "is missing; send a JSON object."
        return ApiError(400, f"The request's body {text}", code=code)
    return ApiError(400, f"'{param}' {text}", code=code, param=param)


def _where(problem: Mapping[str, Any]) -> tuple[str | int, ...]:
    """ninja puts before the field where the value came from, and of a body the argument's name."""
    loc = tuple(problem["loc"])
    return loc[2:] if loc[:1] == ("body",) else loc[1:]


def _sentence(text: str) -> str:
    text = text.removeprefix("Value error, ")
    return text if text.endswith(".") else f"{text}."


def _path(where: Sequence[str | int]) -> str | None:
    """``messages[0].content``; names that pydantic adds for branches of a union are left out."""
    path = ""
    for place, part in enumerate(where, start=1):
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.replace("_", "").isalnum() and not _is_branch(part, last=place == len(where)):
            path += f".{part}" if path else part
    return path or None


def _is_branch(name: str, *, last: bool) -> bool:
    """Types and, inside a path, classes: fields of ours are written small."""
    return name in BRANCHES or (name[:1].isupper() and not last)
