"""Tokens to text while they arrive: whole characters only, and no part of a stop string.

For tokenizers whose decoder only concatenates (byte-level BPE; SentencePiece-type BPE with byte
fallback) each token is looked up as bytes once and an incremental UTF-8 decoder does the rest.
Every other decoder looks at neighbouring tokens, so a window of a few tokens is decoded with and
without the new one (the prefix and read offsets of text-generation-inference and vLLM). Either way
a token costs the same however long the text has become.

The text is ``decode(prompt + tokens)`` after ``decode(prompt)``. One case differs on purpose: where
a run of byte-fallback tokens is not valid UTF-8, ``tokenizers`` turns the run's valid characters
into U+FFFD too; here they were certain earlier and stay.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tokenizers import Tokenizer

from inference_workers.vocabulary import Table, Vocabulary

REPLACEMENT = "\ufffd"
WINDOW = 4
"""Context tokens kept by the window decoder, and the longest it waits for a character's end: UTF-8
has at most four bytes a character, so at most four tokens."""


class Detokenizer:
    """The text of one choice. Its state is a function of prompt and tokens: replay resumes it.

    A stop string that is complete before ``min_tokens`` tokens is ordinary text.
    """

    def __init__(
        self,
        words: Tokenizer | Vocabulary,
        prompt_ids: Sequence[int],
        stop: Sequence[str] = (),
        *,
        min_tokens: int = 0,
    ) -> None:
        vocabulary = Vocabulary.of(words)
        self._special = vocabulary.special
        prompt = [i for i in prompt_ids[-64:] if i not in self._special]
        if not prompt and len(prompt_ids) > 64:
            prompt = [i for i in prompt_ids if i not in self._special]
        self._characters: _Concatenating | _Windowed = (
            _Windowed(vocabulary.tokenizer, prompt)
            if vocabulary.table is None
            else _Concatenating(vocabulary.table, prompt)
        )
        self._stops = [_StopMatcher(text) for text in stop if text]
        self._held = ""
        self._unstoppable = min_tokens
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Text that became certain with this token; empty while something is held back."""
        self._unstoppable -= 1
        if self.stopped or token_id in self._special:
            return ""
        return self._release(self._characters.push(token_id))

    def flush(self) -> str:
        """The rest, when no token follows: an unfinished character becomes U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._characters.flush())
        if self.stopped:
            return text
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        """Pass on what can't be the start of a stop string; on a match set ``stopped``."""
        if not self._stops:
            return text
        start = len(self._held)
        self._held += text
        for end, character in enumerate(text, start + 1):
            matched = [len(stop.text) for stop in self._stops if stop.feed(character)]
            if matched and self._unstoppable <= 0:
                self.stopped = True
                certain, self._held = self._held[: end - max(matched)], ""
                return certain
        keep = len(self._held) - max(stop.matched for stop in self._stops)
        certain, self._held = self._held[:keep], self._held[keep:]
        return certain


class _StopMatcher:
    """Knuth, Morris and Pratt's automaton: constant time a character, whatever the cuts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        self._fallback = [0] * len(text)
        length = 0
        for i in range(1, len(text)):
            while length and text[i] != text[length]:
                length = self._fallback[length - 1]
            length += text[i] == text[length]
            self._fallback[i] = length

    def feed(self, character: str) -> bool:
        """Whether ``character`` completes the stop string."""
        if self.matched == len(self.text):
            self.matched = self._fallback[-1]
        while self.matched and character != self.text[self.matched]:
            self.matched = self._fallback[self.matched - 1]
        self.matched += character == self.text[self.matched]
        return self.matched == len(self.text)


class _Concatenating:
    """For decoders that join tokens' bytes: an incremental UTF-8 decoder over them."""

    def __init__(self, table: Table, prompt: Sequence[int]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip = table.strip
        # Two views of the prompt are enough: its beginning, for a decoder that strips the text's
        # first characters, and its last bytes, where a character may be unfinished.
        for token_id in prompt:
            if not self._strip:
                break
            self._stripped(table.bytes_of(token_id).decode("utf-8", errors="replace"))
        tail: list[bytes] = []
        size = 0
        for token_id in reversed(prompt):
            tail.append(table.bytes_of(token_id))
            size += len(tail[-1])
            if size >= WINDOW:
                break
        self._decoder.decode(b"".join(reversed(tail)))

    def push(self, token_id: int) -> str:
        return self._stripped(self._decoder.decode(self._table.bytes_of(token_id)))

    def flush(self) -> str:
        return self._stripped(self._decoder.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        while self._strip and text:
            if text[0] != self._table.strip_character:
                self._strip = 0
                break
            text = text[1:]
            self._strip -= 1
        return text


class _Windowed:
    """For any decoder: the text of a short window with and without the pending tokens."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._context = list(prompt[-WINDOW:])
        self._context_text = self._decode(self._context)
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        self._pending.append(token_id)
        text = self._decode(self._context + self._pending)
        if text.endswith(REPLACEMENT) and len(self._pending) < WINDOW:
            return ""
        return self._advance(text)

    def flush(self) -> str:
        return self._advance(self._decode(self._context + self._pending)) if self._pending else ""

    def _advance(self, text: str) -> str:
        piece = text[len(self._context_text) :]
        self._context = (self._context + self._pending)[-WINDOW:]
        self._context_text = self._decode(self._context)
        self._pending = []
        return piece

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
