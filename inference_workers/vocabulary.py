"""What each token adds to the text: a tokenizer as streaming and guiding see it.

For decoders that only concatenate (byte-level BPE; SentencePiece-type BPE with byte fallback) that
is a table of bytes, a hundredth of the parsed tokenizer's memory. Preparing a model writes it
beside ``tokenizer.json`` (``models/derived.py``), and a worker need not parse that at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Table:
    """The bytes of all tokens, one after another; special ones as they are spelled.

    ``ends[i]`` is where token ``i`` ends in ``joined``; both may be pages of a file. The decoder
    takes up to ``strip`` times ``strip_character`` from a text's beginning.
    """

    joined: NDArray[np.uint8]
    ends: NDArray[np.uint32]
    strip: int = 0
    strip_character: str = ""

    def __len__(self) -> int:
        return len(self.ends)

    def bytes_of(self, token_id: int) -> bytes:
        """Empty for an id that the tokenizer doesn't know: some models' matrices are padded."""
        if not 0 <= token_id < len(self.ends):
            return b""
        begin = int(self.ends[token_id - 1]) if token_id else 0
        return self.joined[begin : int(self.ends[token_id])].tobytes()


class Vocabulary:
    """``special`` tokens are no text. ``table`` is ``None`` where what a token adds depends on its
    neighbours: then only ``tokenizer`` can tell, which may have to be read first."""

    def __init__(
        self, *, special: Iterable[int], table: Table | None, read: Callable[[], Tokenizer]
    ) -> None:
        self.special = frozenset(special)
        self.table = table
        self._read = read

    @property
    def tokenizer(self) -> Tokenizer:
        return self._read()

    @classmethod
    def of(cls, words: Tokenizer | Vocabulary) -> Vocabulary:
        """A tokenizer's vocabulary. It takes a microsecond a token: keep it."""
        if isinstance(words, Vocabulary):
            return words
        added: Iterable[tuple[int, Any]] = words.get_added_tokens_decoder().items()
        special = [token_id for token_id, how in added if how.special]
        return cls(special=special, table=_table(words), read=lambda: words)


def _table(tokenizer: Tokenizer) -> Table | None:
    rule = _Rule.read(tokenizer.decoder)
    if rule is None:
        return None
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    tokens = [b""] * (max(ids.values(), default=-1) + 1)
    for name, token_id in ids.items():
        tokens[token_id] = rule.encode(name)
    ends = np.cumsum([len(token) for token in tokens], dtype=np.uint32)
    joined = np.frombuffer(b"".join(tokens), np.uint8)
    return Table(joined, ends, rule.strip, rule.strip_character)


class _Rule:
    """How a concatenating decoder turns a token's name into bytes."""

    def __init__(self) -> None:
        self.byte_level = False
        self.byte_fallback = False
        self.replace: list[tuple[str, str]] = []
        self.strip = 0
        self.strip_character = ""

    @classmethod
    def read(cls, decoder: Any) -> _Rule | None:
        """The rule of a tokenizer's decoder, or ``None`` when it doesn't just concatenate."""
        if decoder is None:
            return None
        spec = json.loads(decoder.__getstate__())
        rule = cls()
        for part in spec["decoders"] if spec["type"] == "Sequence" else [spec]:
            if not rule._take(part):
                return None
        if rule.byte_level == rule.byte_fallback or (rule.byte_level and rule.replace):
            return None
        return rule

    def _take(self, part: dict[str, Any]) -> bool:
        match part:
            case {"type": "ByteLevel"}:
                self.byte_level = True
            case {"type": "ByteFallback"}:
                self.byte_fallback = True
            case {"type": "Replace", "pattern": {"String": old}, "content": new}:
                self.replace.append((old, new))
            case {"type": "Strip", "content": character, "start": start, "stop": 0}:
                self.strip, self.strip_character = start, character
            case {"type": "Fuse"}:
                pass
            case _:
                return False
        return True

    def encode(self, token: str) -> bytes:
        """A token's bytes from its name in the vocabulary."""
        if self.byte_level:
            values = [_BYTE_OF.get(character) for character in token]
            return token.encode() if None in values else bytes(v for v in values if v is not None)
        for old, new in self.replace:
            token = token.replace(old, new)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.encode()


def _byte_of() -> dict[str, int]:
    """GPT-2's names of bytes: printable ones name themselves, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names = {chr(b): b for b in printable}
    others = [b for b in range(256) if b not in set(printable)]
    names.update({chr(0x100 + i): b for i, b in enumerate(others)})
    return names


_BYTE_OF = _byte_of()
