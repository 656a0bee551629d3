"""The bodies of answers: a chat's and a completion's, whole and in chunks.

An interface of two forms over the same pieces: ``portal.api.following`` says what happened,
the forms here say how OpenAI would write it down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference_workers.contract import Usage
from llmasos.text.calls import CallReader
from portal.api.logprobs import CompletionLogprobs, Scored, Vocabulary, chat_logprobs


@dataclass(frozen=True, slots=True)
class Piece:
    """What one log entry adds to the choice ``index``; ``finish`` is set on the choice's last."""

    index: int
    text: str
    tokens: tuple[Scored, ...] = ()
    finish: str | None = None


class Form(Protocol):
    """How an endpoint writes its answer."""

    def head(self, index: int) -> dict[str, Any] | None:
        """A chunk that opens choice ``index``, where the form has one."""

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """``None`` while nothing is certain."""

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> dict[str, Any]: ...

    def usage_chunk(self, usage: Usage) -> dict[str, Any]: ...


@dataclass
class _Base:
    id: str
    created: int
    model: str
    vocabulary: Vocabulary
    scored: bool
    """Whether the caller asked for logprobs."""
    usage_in_chunks: bool = False
    """With ``include_usage``, every chunk but the last carries ``usage: null``."""

    kind = ""
    chunk_kind = ""

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        body = self._body(self.chunk_kind, [choice])
        return body | {"usage": None} if self.usage_in_chunks else body

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        return self._body(self.chunk_kind, []) | {"usage": usage_form(usage)}


@dataclass
class ChatForm(_Base):
    tools: Sequence[str] = ()
    """Names of the tools that the answer may call."""
    _readers: dict[int, CallReader] = field(default_factory=dict)

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def head(self, index: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._chunk(
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        )

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        delta = self._delta(piece)
        if not (delta or piece.tokens or piece.finish):
            return None
        return self._chunk(
            {
                "index": piece.index,
                "delta": delta,
                "logprobs": self._logprobs(piece.tokens) if piece.tokens else None,
                "finish_reason": self._finish(piece),
            }
        )

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> dict[str, Any]:
        choices = [
            {
                "index": piece.index,
                "message": self._message(piece),
                "logprobs": self._logprobs(piece.tokens),
                "finish_reason": self._finish(piece),
            }
            for piece in pieces
        ]
        return self._body(self.kind, choices) | {"usage": usage_form(usage)}

    def _reader(self, index: int) -> CallReader:
        return self._readers.setdefault(index, CallReader(self.tools))

    def _finish(self, piece: Piece) -> str | None:
        called = self._reader(piece.index).called is not None
        return "tool_calls" if called and piece.finish == "stop" else piece.finish

    def _delta(self, piece: Piece) -> dict[str, Any]:
        reader = self._reader(piece.index)
        part = reader.push(piece.text)
        text = part.text + (reader.end().text if piece.finish else "")
        if part.name is None and not part.arguments:
            return {"content": text} if text or (piece.tokens and not self.tools) else {}
        call: dict[str, Any] = {"index": 0, "function": {"arguments": part.arguments}}
        if part.name is not None:
            call |= {"id": self._call_id(piece.index), "type": "function"}
            call["function"] = {"name": part.name, "arguments": part.arguments}
        return {"tool_calls": [call]}

    def _message(self, piece: Piece) -> dict[str, Any]:
        reader = self._reader(piece.index)
        part = reader.push(piece.text)
        message = {"role": "assistant", "content": part.text + reader.end().text, "refusal": None}
        if part.name is None:
            return message
        call = {
            "id": self._call_id(piece.index),
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        return message | {"content": None, "tool_calls": [call]}

    def _call_id(self, index: int) -> str:
        """The same again when the same answer is read again."""
        return f"call_{self.id.partition('-')[2]}{index}"

    def _logprobs(self, tokens: Sequence[Scored]) -> dict[str, Any] | None:
        return chat_logprobs(self.vocabulary, tokens) if self.scored else None


@dataclass
class CompletionForm(_Base):
    kind = "text_completion"
    chunk_kind = "text_completion"
    _counters: dict[int, CompletionLogprobs] = field(default_factory=dict)

    def head(self, index: int) -> dict[str, Any] | None:
        return None

    def chunk(self, piece: Piece) -> dict[str, Any]:
        return self._chunk(self._choice(piece))

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> dict[str, Any]:
        choices = [self._choice(piece) for piece in pieces]
        return self._body(self.kind, choices) | {"usage": usage_form(usage)}

    def _choice(self, piece: Piece) -> dict[str, Any]:
        logprobs = None
        if self.scored:
            counter = self._counters.setdefault(piece.index, CompletionLogprobs(self.vocabulary))
            logprobs = counter.form(piece.tokens)
        return {
            "index": piece.index,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish,
        }


def usage_form(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def joined(pieces: Sequence[Piece], count: int) -> list[Piece]:
    """The pieces of ``count`` choices put together, one whole piece for each, in order."""
    texts: list[list[str]] = [[] for _ in range(count)]
    tokens: list[list[Scored]] = [[] for _ in range(count)]
    finish: list[str | None] = [None] * count
    for piece in pieces:
        texts[piece.index].append(piece.text)
        tokens[piece.index].extend(piece.tokens)
        finish[piece.index] = piece.finish or finish[piece.index]
    return [
        Piece(index, "".join(texts[index]), tuple(tokens[index]), finish[index])
        for index in range(count)
    ]


def total(usages: Sequence[Usage]) -> Usage:
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )
