"""What an answer must match, as callers write it. Pure, and cheap however large the input.

Only the worker compiles a guide, within its limits; what is refused there ends the job with the
code ``invalid_guide`` or ``guide_too_complex`` before it costs anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from inference_workers.contract import Guide
from portal.jobs.errors import InvalidRequest

SCHEMA_BYTES = 100_000
PATTERN_CHARACTERS = 10_000
ANY_OBJECT = '{"type":"object"}'


def of_schema(schema: Mapping[str, Any] | str, field: str = "schema") -> Guide:
    """The guide of a JSON schema, given as an object or as its text.

    Raises:
        InvalidRequest: it is no JSON object, too large or too deep.
    """
    if isinstance(schema, str):
        schema = _read(schema, field)
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidRequest(field, f"{field} is nested too deeply. Flatten it.") from None
    guide = Guide.model_construct(kind="json_schema", text=text)
    check(guide, field)
    return guide


def of_pattern(pattern: str, field: str = "guided_regex") -> Guide:
    """The guide of a regular expression. Raises ``InvalidRequest`` where it is too long."""
    guide = Guide.model_construct(kind="regex", text=pattern)
    check(guide, field)
    return guide


def of_response_format(value: Any, field: str = "response_format") -> Guide | None:
    """OpenAI's ``response_format``; ``None`` for plain text.

    Its ``name`` and ``description`` change nothing here, and every schema is followed strictly.

    Raises:
        InvalidRequest: it is none.
    """
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Guide(kind="json_schema", text=ANY_OBJECT)
    if kind != "json_schema":
        raise InvalidRequest(
            field, f"{field} has a type: 'text', 'json_object' or 'json_schema'. Correct it."
        )
    described = value.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidRequest(
            f"{field}.json_schema", f"{field}.json_schema.schema must be a JSON schema: an object."
        )
    return of_schema(schema, f"{field}.json_schema")


def check(guide: Guide, field: str = "guide") -> None:
    """Refuse what no worker would take. Raises ``InvalidRequest``."""
    size, most, unit = len(guide.text.encode(errors="replace")), SCHEMA_BYTES, "bytes"
    if guide.kind == "regex":
        size, most, unit = len(guide.text), PATTERN_CHARACTERS, "characters"
    if not guide.text:
        raise InvalidRequest(field, f"{field} is empty. Leave it out, or say what to match.")
    if size > most:
        raise InvalidRequest(
            field, f"{field} has {size:,} {unit}; at most {most:,} are taken. Make it smaller."
        )
    if guide.kind == "json_schema":
        _read(guide.text, field)


def _read(text: str, field: str) -> Mapping[str, Any]:
    if len(text) > SCHEMA_BYTES:
        raise InvalidRequest(
            field, f"{field} has {len(text):,} characters; at most {SCHEMA_BYTES:,} are taken."
        )
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(field, f"{field} is not JSON ({error}). Correct it.") from None
    except RecursionError:
        raise InvalidRequest(field, f"{field} is nested too deeply. Flatten it.") from None
    if not isinstance(found, Mapping):
        raise InvalidRequest(field, f"{field} must be a JSON schema: an object.")
    return found
