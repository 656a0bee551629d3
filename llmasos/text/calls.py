"""Tells a call of a tool from a text, while the answer comes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_HEAD = re.compile(
    r'\s*(?:<tool_call>\s*)?\{\s*"name"\s*:\s*"([A-Za-z0-9_-]+)"\s*,\s*"arguments"\s*:\s*(?=\{)'
)
_MARK = "<tool_call>"


@dataclass(frozen=True, slots=True)
class Part:
    """What became certain: more of the text, or of a call's arguments; ``name`` opens a call."""

    text: str = ""
    name: str | None = None
    arguments: str = ""


@dataclass
class CallReader:
    """Reads one choice. Text is held back as long as it may still become a call."""

    names: Sequence[str]
    called: str | None = None
    """The tool that is called, once that is known."""
    _held: str = ""
    _plain: bool = False
    _depth: int = field(default=0)
    _quoted: bool = False
    _escaped: bool = False
    _closed: bool = False

    def push(self, text: str) -> Part:
        if self._plain or not self.names:
            return Part(text=text)
        if self.called is not None:
            return Part(arguments=self._of_arguments(text))
        self._held += text
        head = _HEAD.match(self._held)
        if head is not None and head[1] in self.names:
            self.called = head[1]
            return Part(name=head[1], arguments=self._of_arguments(self._held[head.end() :]))
        if self._may_be_call():
            return Part()
        return self.end()

    def end(self) -> Part:
        """Nothing more comes: what was held back is text."""
        held, self._held = self._held, ""
        self._plain = self.called is None
        return Part(text=held if self._plain else "")

    def _may_be_call(self) -> bool:
        bare = "".join(self._held.split()).removeprefix(_MARK)
        heads = [f'{{"name":"{name}","arguments":{{' for name in self.names]
        return _MARK.startswith(bare) or any(
            head.startswith(bare) or bare.startswith(head) for head in heads
        )

    def _of_arguments(self, text: str) -> str:
        """``text`` up to the brace that closes the arguments."""
        if self._closed:
            return ""
        for index, letter in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = letter == "\\"
                self._quoted = letter != '"'
            elif letter == '"':
                self._quoted = True
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._closed = True
                    return text[: index + 1]
        return text
