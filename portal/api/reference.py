"""The description as the reference page shows it: by group, with fields and an example. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a field of a body. ``place`` is path, query or body."""

    name: str
    place: str
    kind: str
    required: bool


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    paragraphs: tuple[str, ...]
    fields: tuple[Field, ...]
    example: str
    """A body that works, as JSON; empty where there is none."""

    @property
    def example_rows(self) -> int:
        return self.example.count("\n") + 1

    @property
    def parameters(self) -> list[Field]:
        return [field for field in self.fields if field.place != "body"]


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    operations: tuple[Operation, ...]


def groups(schema: Schema) -> list[Group]:
    """The operations in their order, by tag."""
    found: dict[str, list[Operation]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["Other"])[0]
            found.setdefault(tag, []).append(_operation(schema, path, method, operation))
    return [Group(name, tuple(operations)) for name, operations in found.items()]


def _operation(schema: Schema, path: str, method: str, operation: Schema) -> Operation:
    body = _body(schema, operation)
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation.get("summary", ""),
        paragraphs=_paragraphs(operation.get("description", "")),
        fields=(*_parameters(schema, operation), *_fields(schema, body)),
        example=_example(body),
    )


def _example(body: Schema) -> str:
    """As JSON, what must be there first."""
    if "example" not in body:
        return ""
    required = body.get("required", ())
    fields = sorted(body["example"].items(), key=lambda item: item[0] not in required)
    return json.dumps(dict(fields), indent=2, ensure_ascii=False)


def _paragraphs(text: str) -> tuple[str, ...]:
    """A docstring's, each on one line and without its marks."""
    parts = text.replace("``", "").split("\n\n")
    return tuple(" ".join(part.split()) for part in parts if part.strip())


def _parameters(schema: Schema, operation: Schema) -> Iterator[Field]:
    for parameter in operation.get("parameters", ()):
        form = parameter.get("schema", {})
        required = bool(parameter.get("required"))
        yield Field(parameter["name"], parameter["in"], _kind(schema, form), required)


def _body(schema: Schema, operation: Schema) -> Schema:
    content = operation.get("requestBody", {}).get("content", {})
    return _resolved(schema, content.get("application/json", {}).get("schema", {}))


def _fields(schema: Schema, body: Schema) -> Iterator[Field]:
    """Those that must be there come first."""
    required = body.get("required", ())
    properties = body.get("properties", {})
    for name, form in sorted(properties.items(), key=lambda item: item[0] not in required):
        yield Field(name, "body", _kind(schema, form), name in required)


def _resolved(schema: Schema, form: Schema) -> Schema:
    if "$ref" not in form:
        return form
    found: Schema = schema["components"]["schemas"][form["$ref"].rpartition("/")[2]]
    return found


def _kind(schema: Schema, form: Schema) -> str:
    """A type in a few words: ``integer, 1 to 16`` or ``auto, none or an object``."""
    if "anyOf" in form:
        kinds = [_kind(schema, other) for other in form["anyOf"] if other.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    form = _resolved(schema, form)
    if "enum" in form:
        return ", ".join(str(value) for value in form["enum"])
    if "const" in form:
        return str(form["const"])
    kind = str(form.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema, form.get('items', {}))}"
    return kind + _range(form)


def _range(form: Schema) -> str:
    low, high = form.get("minimum", form.get("exclusiveMinimum")), form.get("maximum")
    if low is None or high is None:
        return ""
    return f", {low:,} to {high:,}"
