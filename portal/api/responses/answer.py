"""A response, and the events of its stream, from the entries of a job's log.

Both are functions of what was asked and of the log alone, so an event has the same number whenever
the log is read, and a reader goes on from any of them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference_workers.contract import (
    Cancelled,
    Delta,
    Embedded,
    Entry,
    Failed,
    Finished,
    Started,
    Usage,
)
from llmasos.text.calls import CallReader, Part
from portal.api.logprobs import Scored, Vocabulary, chat_logprobs

Event = dict[str, Any]


@dataclass
class Answer:
    """Feed it the log. ``asked`` are the fields that the answer repeats."""

    job_id: str
    asked: dict[str, Any]
    background: bool
    offered: Sequence[str]
    vocabulary: Vocabulary | None
    """Given if logprobs are wanted."""
    status: str = "queued"
    failed: Failed | None = None
    _reader: CallReader = field(init=False)
    _number: int = -1
    _text: str = ""
    _arguments: str = ""
    _logprobs: list[dict[str, Any]] = field(default_factory=list)
    _waiting: list[Scored] = field(default_factory=list)
    _open: str | None = None
    _usage: Usage | None = None
    _error: dict[str, str] | None = None
    _cut: bool = False

    def __post_init__(self) -> None:
        self._reader = CallReader(self.offered)

    def begin(self) -> list[Event]:
        """What is said before the log's first entry."""
        events = [self._event("response.created", response=self.body())]
        if self.background:
            events.append(self._event("response.queued", response=self.body()))
        self.status = "in_progress"
        return [*events, self._event("response.in_progress", response=self.body())]

    def take(self, entry: Entry) -> list[Event]:
        """What one entry adds; its last one ends the response."""
        event = entry.event
        if isinstance(event, Started):
            self.status = "in_progress"
            return []
        if isinstance(event, Delta):
            return self._delta(event)
        if isinstance(event, Embedded):
            return []  # no response's job is an encoder's
        self._usage = event.usage
        said = self._close(ended=isinstance(event, Finished))
        if isinstance(event, Failed):
            self.failed = event
            self.fail(event.message)
            return [*said, self._event("response.failed", response=self.body())]
        if isinstance(event, Cancelled):
            self.status = "cancelled"
            return [*said, self._event("response.incomplete", response=self.body())]
        self._cut = event.reason == "length"
        self.status = "incomplete" if self._cut else "completed"
        return [*said, self._event(f"response.{self.status}", response=self.body())]

    def fail(self, message: str) -> None:
        self.status = "failed"
        self._error = {"code": "server_error", "message": message}

    @property
    def ended(self) -> bool:
        return self.status not in ("queued", "in_progress")

    def body(self) -> dict[str, Any]:
        """The response as it stands."""
        done = {"completed": "completed", "queued": "in_progress", "in_progress": "in_progress"}
        state = done.get(self.status, "incomplete")
        return {
            **self.asked,
            "status": self.status,
            "error": self._error,
            "incomplete_details": {"reason": "max_output_tokens"} if self._cut else None,
            "output": [self._item(state)] if self._open else [],
            "usage": None if self._usage is None else _usage(self._usage),
        }

    def _delta(self, delta: Delta) -> list[Event]:
        if self.vocabulary is not None:
            self._waiting += [Scored.of(token) for token in delta.logprobs or ()]
        return self._said(self._reader.push(delta.text))

    def _said(self, part: Part) -> list[Event]:
        events = []
        if part.name is not None:
            events += self._begin_item("function_call")
        if part.arguments:
            self._arguments += part.arguments
            events.append(
                self._event("response.function_call_arguments.delta", **self._place(),
                            delta=part.arguments)
            )  # fmt: skip
        if part.text:
            if self._open is None:
                events += self._begin_item("message")
            events.append(self._text_delta(part.text))
        return events

    def _text_delta(self, text: str) -> Event:
        self._text += text
        logprobs = self._scored()
        self._logprobs += logprobs
        return self._event(
            "response.output_text.delta",
            **self._place(),
            content_index=0,
            delta=text,
            logprobs=logprobs,
        )

    def _scored(self) -> list[dict[str, Any]]:
        if self.vocabulary is None:
            return []
        found: list[dict[str, Any]] = chat_logprobs(self.vocabulary, self._waiting)["content"]
        self._waiting = []
        return found

    def _begin_item(self, kind: str) -> list[Event]:
        self._open = kind
        item = self._item("in_progress")
        if kind == "function_call":
            return [self._event("response.output_item.added", output_index=0, item=item)]
        return [
            self._event("response.output_item.added", output_index=0, item=item | {"content": []}),
            self._event(
                "response.content_part.added", **self._place(), content_index=0, part=self._part()
            ),
        ]

    def _close(self, *, ended: bool) -> list[Event]:
        """The end of the item; an answer without a word is an empty message."""
        events = self._said(self._reader.end())
        if self._open is None and ended:
            events += self._begin_item("message")
        if self._open is None:
            return events
        if self._open == "function_call":
            events.append(
                self._event("response.function_call_arguments.done", **self._place(),
                            name=self._reader.called, arguments=self._arguments)
            )  # fmt: skip
        else:
            self._logprobs += self._scored()
            place = self._place() | {"content_index": 0}
            events += [
                self._event("response.output_text.done", **place, text=self._text,
                            logprobs=self._logprobs),
                self._event("response.content_part.done", **place, part=self._part()),
            ]  # fmt: skip
        item = self._item("completed" if ended else "incomplete")
        return [*events, self._event("response.output_item.done", output_index=0, item=item)]

    def _item(self, status: str) -> dict[str, Any]:
        if self._open == "function_call":
            return {
                "id": f"fc_{self.job_id}",
                "type": "function_call",
                "status": status,
                "call_id": f"call_{self.job_id}",
                "name": self._reader.called,
                "arguments": self._arguments,
            }
        return {
            "id": f"msg_{self.job_id}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        logprobs = list(self._logprobs)
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": logprobs}

    def _place(self) -> dict[str, Any]:
        kind = "fc" if self._open == "function_call" else "msg"
        return {"item_id": f"{kind}_{self.job_id}", "output_index": 0}

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **fields}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
