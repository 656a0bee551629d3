"""Items, in which the responses API says what was said, as messages for a chat template. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Item = Mapping[str, Any]
Message = dict[str, Any]


def messages_of(items: Iterable[Item]) -> list[Message]:
    """One message for each item: of a person, of the assistant, a call or a call's result."""
    return [_message(item) for item in items]


def called(call_id: str, name: str, arguments: str) -> Message:
    """The assistant's message that calls a tool."""
    function = {"name": name, "arguments": arguments}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _message(item: Item) -> Message:
    if item["type"] == "function_call":
        return called(item["call_id"], item["name"], item["arguments"])
    if item["type"] == "function_call_output":
        return {"role": "tool", "tool_call_id": item["call_id"], "content": _text(item["output"])}
    role = "system" if item["role"] == "developer" else item["role"]
    return {"role": role, "content": _text(item["content"])}


def _text(content: str | Iterable[Item]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
