"""Tools for models that were not taught to call any: all in words, as part of the conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta

from llmasos.text.chat import MAX_TEMPLATE
from llmasos.text.sandbox import ChatEnvironment

HOW = (
    "You can call these functions. To call one, answer with nothing but JSON of this form: "
    '{"name": "the function\'s name", "arguments": {its arguments}}'
)


@lru_cache(maxsize=32)
def takes_tools(template: str) -> bool:
    """Whether a chat template shows tools by itself."""
    if len(template) > MAX_TEMPLATE:
        return False
    try:
        parsed = ChatEnvironment().parse(template)
    except (jinja2.TemplateSyntaxError, RecursionError):
        return False  # rendering says what is wrong
    return "tools" in meta.find_undeclared_variables(parsed)


def spelled_out(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """The conversation with its tools, calls and results as plain text, for any template.

    ``tools`` and ``tool_calls`` are in OpenAI's form. Without any, the messages as they are.
    """
    if not tools and not any(_uses_tools(message) for message in messages):
        return messages
    called: dict[str, str] = {}
    plain = []
    for message in messages:
        calls = message.get("tool_calls") or ()
        called |= {call["id"]: call["function"]["name"] for call in calls}
        plain.append(_plain(message, called))
    return _shown(tools, plain) if tools else plain


def _uses_tools(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls")) or message.get("role") == "tool"


def _plain(message: Mapping[str, Any], called: Mapping[str, str]) -> Mapping[str, Any]:
    if message.get("role") == "tool":
        name = called.get(str(message.get("tool_call_id")), "the function")
        return {"role": "user", "content": f"Result of {name}: {message.get('content') or ''}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [str(message.get("content") or "")]
    texts += [
        f'{{"name": "{call["function"]["name"]}", "arguments": {call["function"]["arguments"]}}}'
        for call in calls
    ]
    return {"role": message.get("role"), "content": "\n".join(text for text in texts if text)}


def _shown(
    tools: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The tools in the system's message, which is made if there is none."""
    lines = [HOW, *(_line(tool["function"]) for tool in tools)]
    text = "\n".join(lines)
    if messages and messages[0].get("role") == "system":
        first = f"{messages[0].get('content') or ''}\n\n{text}"
        return [{"role": "system", "content": first}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _line(function: Mapping[str, Any]) -> str:
    about = f": {function['description']}" if function.get("description") else ""
    parameters = json.dumps(function.get("parameters") or {}, ensure_ascii=False)
    return f"- {function['name']}{about} Arguments: {parameters}"
