"""From a conversation to one text: a model's own chat template, or a transcript for a base model.

A template is a program that a stranger wrote. It runs in jinja's immutable sandbox with everything
taken out that a chat template doesn't need, and pays for each loop, call, operation and character
from a budget (``llmasos.text.sandbox``); beyond it, ``ChatTemplateError``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2

from llmasos.errors import ChatTemplateError
from llmasos.text.sandbox import Budget, ChatEnvironment, TemplateRefusal, spending

MAX_TEMPLATE = 64 * 1024
"""Characters. The longest template in use has about 20,000."""

MAX_OUTPUT = 8_000_000
MAX_SECONDS = 0.5
MAX_MESSAGES = 4096
TRANSCRIPT_STOP = ("\nUser:", "\nSystem:")
ROLE_NAMES = {"user": "User", "assistant": "Assistant", "system": "System", "developer": "System"}


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation as plain text, and the sequences at which the next answer ends."""

    text: str
    stop: tuple[str, ...]


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos: str = "",
    eos: str = "",
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render a model's chat template; ``bos`` and ``eos`` are the tokens as the vocabulary spells
    them, ``tools`` what may be called, in OpenAI's form. Takes at most about half a second of
    processor time and ``MAX_OUTPUT`` characters.

    Raises:
        ChatTemplateError: the template is wrong, refuses the messages (a role that it doesn't know,
            for example), does what a template may not, or goes beyond its limits.
    """
    if len(template) > MAX_TEMPLATE:
        raise ChatTemplateError(
            f"The model's chat template has {len(template):,} characters; at most {MAX_TEMPLATE:,} "
            "are run. Use another version of the model."
        )
    plain = [_plain(message) for message in checked_messages(messages)]
    try:
        compiled, static = _compile(template)
        with spending(Budget(characters=MAX_OUTPUT, seconds=MAX_SECONDS, call_cost=static)):
            return compiled.render(
                messages=plain,
                bos_token=bos,
                eos_token=eos,
                add_generation_prompt=add_generation_prompt,
                tools=list(tools) or None,
                documents=None,
            )
    except TemplateRefusal as refusal:
        raise ChatTemplateError(str(refusal)) from None
    except jinja2.TemplateSyntaxError as error:
        raise ChatTemplateError(
            f"The model's chat template is not valid (line {error.lineno}). Use another version of "
            "the model."
        ) from error
    except (RecursionError, MemoryError) as error:
        raise ChatTemplateError(
            "The model's chat template nests too deeply or grows too large. Use another version of "
            "the model."
        ) from error
    except Exception as error:  # whatever a template's expressions raise
        raise ChatTemplateError(
            f"The model's chat template fails on these messages ({type(error).__name__}). Check "
            "the messages' roles and contents."
        ) from error


def render_transcript(messages: Sequence[Mapping[str, Any]]) -> Transcript:
    """For a base model, which continues text: who said what, line by line, and whose turn it is.

    Raises:
        ChatTemplateError: a message has no known role or no text.
    """
    lines = []
    for message in checked_messages(messages):
        role = str(message["role"])
        if role not in ROLE_NAMES:
            raise ChatTemplateError(
                f"A base model's transcript has no role {role!r}. Use user, assistant or system."
            )
        lines.append(f"{ROLE_NAMES[role]}: {text_of(message).strip()}")
    return Transcript("\n".join([*lines, "Assistant:"]), TRANSCRIPT_STOP)


def checked_messages(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The messages, if each is an object with a role and a text."""
    if not messages:
        raise ChatTemplateError("There are no messages. Send at least one.")
    if len(messages) > MAX_MESSAGES:
        raise ChatTemplateError(
            f"There are {len(messages):,} messages; at most {MAX_MESSAGES:,} are read. Send fewer."
        )
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ChatTemplateError(f"Message {number} has no role. Give it one, such as user.")
        text_of(message)
    return messages


def text_of(message: Mapping[str, Any]) -> str:
    """The text of one message: a string, or OpenAI's list of ``text`` parts joined."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [p.get("text") if isinstance(p, Mapping) else None for p in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if part)
    raise ChatTemplateError(
        "A message's content is not text. Send a string, or a list of text parts."
    )


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "tool_call_id")
    extra: dict[str, Any] = {name: message[name] for name in names
                             if isinstance(message.get(name), str)}  # fmt: skip
    if calls := message.get("tool_calls"):
        extra["tool_calls"] = [_call(call) for call in calls]
    return {"role": str(message["role"]), "content": text_of(message), **extra}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as templates know it, its arguments an object where they are one."""
    function = dict(call["function"])
    with suppress(ValueError, RecursionError):
        function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


@lru_cache(maxsize=32)
def _compile(template: str) -> tuple[jinja2.Template, int]:
    environment = ChatEnvironment()
    return environment.from_string(template), environment.static_characters
