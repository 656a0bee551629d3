"""What an answer must look like: JSON, a schema, or calls of the caller's tools.

All of it becomes one ``Guide``, which the worker's sampler obeys, so that small models answer
validly too. A call is written ``{"name": "…", "arguments": {…}}``; ``llmasos.text.calls`` reads it
back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from inference_workers.contract import Guide
from portal.api.base import Strict

MAX_TOOLS = 128
MAX_SCHEMA = 100_000
"""Characters of a response's schema, and of all tools' parameters together."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Description = Annotated[str, Field(max_length=8192)]
Schema = dict[str, Any]


class Function(Strict):
    name: Name
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    name: Name


class NamedTool(Strict):
    type: Literal["function"]
    function: FunctionName


class JsonSchema(Strict):
    name: Name
    description: Description | None = None
    schema_: Schema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = Field(default=None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def _belongs(cls, value: JsonSchema | None, info: ValidationInfo) -> JsonSchema | None:
        if (info.data.get("type") == "json_schema") != (value is not None):
            raise ValueError("it belongs to the type 'json_schema', and that type needs it")
        return value

    @property
    def schema_text(self) -> str | None:
        """The JSON schema that the answer must match; ``None`` for plain text."""
        if self.type == "text":
            return None
        wanted = self.json_schema.schema_ if self.json_schema else None
        return _json({"type": "object"} if wanted is None else wanted)

    @field_validator("json_schema")
    @classmethod
    def _small(cls, value: JsonSchema | None) -> JsonSchema | None:
        if value is not None:
            _check_schemas(value.schema_)
        return value

    def guide(self) -> Guide | None:
        text = self.schema_text
        return None if text is None else Guide(kind="json_schema", text=text)


class Structured(Strict):
    """The fields that shape an answer, for endpoints to inherit."""

    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @field_validator("tools")
    @classmethod
    def _distinct_tools(cls, value: list[Tool] | None, info: ValidationInfo) -> list[Tool] | None:
        names = [tool.function.name for tool in value or ()]
        if len(set(names)) != len(names):
            raise ValueError("two of them have the same name; give each its own")
        schemas = [tool.function.parameters for tool in value or ()]
        _check_schemas(schemas)
        answer = info.data.get("response_format")
        both = [schemas, answer and answer.schema_text]
        if value and both[1] is not None and "$ref" in _json(both):
            raise ValueError("beside a 'response_format', no schema can use '$ref'; write it out")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _known_tool(cls, value: Any, info: ValidationInfo) -> Any:
        names = [tool.function.name for tool in info.data.get("tools") or ()]
        if isinstance(value, NamedTool) and value.function.name not in names:
            raise ValueError(f"'{value.function.name}' is none of the 'tools'")
        if value == "required" and not names and "tools" in info.data:
            raise ValueError("'required' needs 'tools' to choose from")
        return value

    def offered(self) -> list[Function]:
        """The tools that may be called now."""
        functions = [tool.function for tool in self.tools or ()]
        if self.tool_choice == "none":
            return []
        if isinstance(self.tool_choice, NamedTool):
            return [f for f in functions if f.name == self.tool_choice.function.name]
        return functions

    def guide(self) -> Guide | None:
        """What the answer must match; ``None`` leaves it free."""
        must_call = self.tool_choice not in (None, "auto", "none")
        schema = self.response_format.schema_text if self.response_format else None
        return guide_of(self.offered(), must_call=must_call, schema=schema)


def guide_of(functions: Sequence[Function], *, must_call: bool, schema: str | None) -> Guide | None:
    """A call of one of ``functions``; else, unless ``must_call``, an answer that matches
    ``schema``, a JSON schema, or with ``None`` any text.

    A text that begins with a brace would look like a call, so it doesn't.
    """
    if not functions:
        return None if schema is None else Guide(kind="json_schema", text=schema)
    if schema is not None and not must_call:
        return Guide(kind="json_schema", text=_call_or(functions, schema))
    calls = [f"call_{number}" for number in range(len(functions))]
    rules = [f"call: {' | '.join(calls)}"]
    for name, function in zip(calls, functions, strict=True):
        head = _json(f'{{"name": "{function.name}", "arguments": ')
        rules.append(f'{name}: {head} {name}_arguments "}}"')
        rules.append(f"{name}_arguments: %json {_json(_object(function.parameters))}")
    starts = ["call"]
    if not must_call:
        # As models write it that were taught to call tools between such marks.
        starts += ['"<tool_call>" GAP call GAP "</tool_call>"', "TEXT?"]
        rules += [r"GAP: /[ \n]?/", r"TEXT: /\s*[^{\s](?s:.)*/"]
    return Guide(kind="lark", text="\n".join([f"start: {' | '.join(starts)}", *rules, ""]))


def _call_or(functions: Sequence[Function], schema: str) -> str:
    """One schema for both: in a grammar's text, a call's beginning would hide the answer's."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function.name},
                "arguments": _object(function.parameters),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in functions
    ]
    return _json({"anyOf": [*calls, json.loads(schema)]})


def _object(parameters: Schema | None) -> Schema:
    """OpenAI's default for a function without parameters: no arguments."""
    if not parameters:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return parameters if "type" in parameters else {"type": "object", **parameters}


def _check_schemas(value: Any) -> None:
    """Raises ``ValueError`` for what is too large, too deep or not Unicode."""
    try:
        size = len(_json(value).encode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds a lone surrogate; send well-formed Unicode") from None
    if size > MAX_SCHEMA:
        raise ValueError(f"it has {size:,} bytes; at most {MAX_SCHEMA:,} are read")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
