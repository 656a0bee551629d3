"""Random JSON schemas whose texts come to an end, and schemas that mean harm."""

from __future__ import annotations

import json
import random
from typing import Any

PATTERNS = ["^[A-Z]{2}-[0-9]{1,4}$", "^(red|green|blue)$", "^[^x]{0,5}$", "^\\w{1,6}@\\w{1,4}$"]
WORDS = ["名", "a b", "naïve", "x", "🙂", 'quo"te', "back\\slash", "tab\t"]


def schema(rng: random.Random) -> dict[str, Any]:
    """An object or something simpler, at most three levels deep."""
    definitions = {f"d{i}": _scalar(rng) for i in range(2)}
    found = _any(rng, 3) if rng.random() < 0.3 else _object(rng, 3)
    return {**found, "$defs": definitions} if "$ref" in json.dumps(found) else found


def _any(rng: random.Random, depth: int) -> dict[str, Any]:
    kinds = [_scalar, _scalar]
    if depth:
        kinds += [
            lambda r: _object(r, depth - 1),
            lambda r: _array(r, depth - 1),
            lambda r: {"anyOf": [_any(r, depth - 1) for _ in range(r.randint(1, 3))]},
            lambda r: {"$ref": f"#/$defs/d{r.randint(0, 1)}"},
        ]
    return rng.choice(kinds)(rng)


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample([*WORDS, "id", "price", "tags"], rng.randint(0, 4))
    return {
        "type": "object",
        "properties": {name: _any(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.7],
        "additionalProperties": False,
    }


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _any(rng, depth - 1) if depth else _scalar(rng),
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }


def _scalar(rng: random.Random) -> dict[str, Any]:
    low = rng.randint(-500, 500)
    least = rng.randint(0, 4)
    return rng.choice(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 10_000)},
            {"type": "integer", "exclusiveMinimum": low, "maximum": low + 50},
            {"type": "number", "minimum": low, "maximum": low + rng.randint(1, 100)},
            {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 8)},
            {"type": "string", "pattern": rng.choice(PATTERNS)},
            {"type": "string", "format": rng.choice(["date", "time", "uuid", "ipv4"])},
            {"type": ["boolean", "null"]},
            {"const": rng.choice([*WORDS, 5, -1.5, None, [1, "a"], {"k": True}])},
            {"enum": rng.sample([*WORDS, 1, 2.5, None, False], rng.randint(1, 5))},
        ]
    )


def _nested(depth: int) -> Any:
    inner: Any = {"type": "string"}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner}, "required": ["a"]}
    return inner


def _bomb(depth: int, how: str) -> Any:
    definitions: dict[str, Any] = {"a0": {"type": "string"}}
    for i in range(1, depth + 1):
        definitions[f"a{i}"] = {how: [{"$ref": f"#/$defs/a{i - 1}"}] * 2}
    return {"$ref": f"#/$defs/a{depth}", "$defs": definitions}


HOSTILE: dict[str, tuple[str, str]] = {
    **{
        name: ("json_schema", json.dumps(value))
        for name, value in {
            "nested 40": _nested(40),
            "2,000 optional properties": {
                "type": "object",
                "properties": {f"p{i}": {"type": "string"} for i in range(2000)},
            },
            "an enum of 12,000": {"enum": [f"value {i * 7919}" for i in range(12_000)]},
            "doubling anyOf": _bomb(20, "anyOf"),
            "doubling allOf": _bomb(20, "allOf"),
            "itself": {"$ref": "#"},
            "a ring": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
            "tree": {"type": "array", "items": {"$ref": "#"}},
            "elsewhere": {"$ref": "http://127.0.0.1:9/schema.json"},
            "a file": {"$ref": "file:///etc/passwd"},
            "a large prime": {"type": "integer", "multipleOf": 999_999_937},
            "patterns at once": {
                "allOf": [{"type": "string", "pattern": f"^(.*{c}.{{8}}.*)$"} for c in "abcdefgh"]
            },
            "a million items": {"type": "array", "minItems": 10**6, "items": {"type": "integer"}},
            "numbers": {"type": "number", "minimum": -1e300, "maximum": 1e300},
        }.items()
    },
    "raw nesting": ("json_schema", '{"const":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "exponential": ("regex", "(a|aa|a?)*" * 20 + "b"),
    "repeated": ("regex", "((a{0,1000}){0,1000}){0,1000}"),
    "behind": ("regex", "[ab]*a[ab]{20}"),
    "groups": ("regex", "(" * 50_000 + "a" + ")" * 50_000),
    "words": ("regex", r"\w{1,10000}"),
    "alternatives": ("regex", "|".join(str(i * 7919) for i in range(20_000))),
    "ambiguous": ("lark", 'start: s\ns: s s | "a" | s s s\n'),
    "rules": ("lark", "start: x\nx: " + " | ".join(f'"{i}"' for i in range(20_000))),
    "endless": ("lark", "start: a\na: b\nb: a\n"),
    "counted": ("lark", 'start: x{1,1000}\nx: y{1,1000}\ny: z{1,1000}\nz: "a"?\n'),
    "brackets": ("lark", "start: " + "(" * 3000 + '"a"' + ")" * 3000),
}
