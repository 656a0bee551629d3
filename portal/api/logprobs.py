"""Scored tokens in OpenAI's two forms: chat's list of objects, completion's parallel lists."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inference_workers.contract import TokenLogprob

FLOOR = -9999.0
"""What OpenAI sends for a logprob that JSON cannot hold."""


class Vocabulary(Protocol):
    """The part of a tokenizer that is needed to name a token."""

    bos_id: int | None

    def decode(self, ids: Sequence[int]) -> str: ...

    def token_bytes(self, token: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Scored:
    """A token with its logprob, ``None`` for the first of a prompt, and the likeliest others."""

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, token: TokenLogprob) -> Scored:
        return cls(token.token_id, token.logprob, token.top)


def token_name(vocabulary: Vocabulary, token_id: int) -> str:
    """The token's text, or ``bytes:\\xe2\\x80`` where it is only a part of a character."""
    data = vocabulary.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(vocabulary: Vocabulary, tokens: Sequence[Scored]) -> dict[str, Any]:
    """``choices[].logprobs`` of a chat answer or of one of its chunks."""

    def entry(token_id: int, logprob: float | None) -> dict[str, Any]:
        return {
            "token": token_name(vocabulary, token_id),
            "logprob": _number(logprob),
            "bytes": list(vocabulary.token_bytes(token_id)),
        }

    content = [
        entry(token.token_id, token.logprob)
        | {"top_logprobs": [entry(token_id, logprob) for token_id, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """``choices[].logprobs`` of a completion, chunk by chunk: it counts the offsets in the text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def form(self, tokens: Sequence[Scored]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            if token.token_id != self._vocabulary.bos_id:  # which no text shows
                data = self._vocabulary.token_bytes(token.token_id)
                self._offset += len(self._decoder.decode(data))
        return {
            "tokens": [token_name(self._vocabulary, token.token_id) for token in tokens],
            "token_logprobs": [_number(token.logprob) for token in tokens],
            "top_logprobs": [self._alternatives(token) for token in tokens],
            "text_offset": offsets,
        }

    def _alternatives(self, token: Scored) -> dict[str, float | None] | None:
        """The likeliest, and the token itself, as OpenAI has it."""
        if token.logprob is None:
            return None
        pairs = dict(token.top) | {token.token_id: token.logprob}
        return {token_name(self._vocabulary, key): _number(value) for key, value in pairs.items()}


def _number(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, FLOOR)
