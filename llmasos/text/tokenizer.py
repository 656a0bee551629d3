"""A prepared model's tokenizer: text to ids and back, without torch.

Loading parses ``tokenizer.json`` (for a vocabulary of 262,144 tokens, about a second): ``load``
keeps what it loaded, per folder and version of the file.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from llmasos.errors import TokenizerError

MAX_CHARACTERS = 20_000_000
"""Longer texts are refused unread: about 5 million tokens, more than any model's context."""

CACHED = 16
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_lock = threading.Lock()


class Tokenizer:
    """Encodes and decodes for one model. Immutable and safe for any number of threads."""

    def __init__(
        self,
        backend: Backend,
        *,
        bos_id: int | None = None,
        add_bos: bool = False,
        framed: bool = False,
    ) -> None:
        """``framed``: its model is an encoder, whose texts stand between tokens of their own."""
        self.backend = backend
        self.framed = framed
        self.bos_id = bos_id
        self.add_bos = add_bos and bos_id is not None
        self._byte_level = _is_byte_level(backend)

    @classmethod
    def load(cls, folder: Path | str, *, add_bos: bool | None = None) -> Tokenizer:
        """The tokenizer of a prepared folder; ``add_bos`` overrides what its manifest says.

        Raises:
            TokenizerError: the folder has no tokenizer, or it can't be read.
        """
        path = Path(folder, "tokenizer.json").absolute()
        try:
            stat = path.stat()
        except OSError:
            raise TokenizerError(
                f"{folder} has no tokenizer.json. Prepare the model first.", code="not_prepared"
            ) from None
        with _lock:  # one thread parses, the others find it parsed
            found = _load(path, stat.st_mtime_ns, stat.st_size)
        if add_bos is None or add_bos == found.add_bos:
            return found
        return cls(found.backend, bos_id=found.bos_id, add_bos=add_bos, framed=found.framed)

    @property
    def vocab_size(self) -> int:
        """How many ids there are, added tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(
        self, text: str, add_special: bool = True, *, at_most: int | None = None
    ) -> list[int]:
        """Token ids; with ``add_special``, begun as the model was taught (BOS or nothing), and
        for an encoder ended as well.

        A text that already begins with BOS, as a chat template's may, does not get a second one.
        ``at_most`` is the most tokens that make sense: a text that can't but have more is refused
        before it is encoded, in no time.

        Raises:
            TokenizerError: the text is too long or has half a surrogate pair.
        """
        if at_most is not None and len(text) > at_most * self.longest:
            raise TokenizerError(
                f"The text has {len(text):,} characters, which is certainly more than {at_most:,} "
                "tokens. Shorten it.",
                code="too_long",
            )
        framed = add_special and self.framed
        ids: list[int] = self.backend.encode(_checked(text), add_special_tokens=framed).ids
        if add_special and self.add_bos and not framed and ids[:1] != [self.bos_id]:
            assert self.bos_id is not None
            ids = [self.bos_id, *ids]
        if at_most is not None and len(ids) > at_most:
            raise TokenizerError(
                f"The text has {len(ids):,} tokens; at most {at_most:,} fit. Shorten it.",
                code="too_long",
            )
        return ids

    @cached_property
    def longest(self) -> int:
        """No token stands for more characters than this."""
        if type(self.backend.model).__name__ == "WordPiece":
            return MAX_CHARACTERS  # one token stands for an unknown word, and none for a space
        longest = max(map(len, self.backend.get_vocab(with_added_tokens=True)), default=1)
        shrinks = self.backend.normalizer is not None and any(
            form in repr(self.backend.normalizer)
            for form in ("NFC", "NFKC", "Strip", "Precompiled")
        )
        return longest * 4 if shrinks else longest

    def count(self, text: str, add_special: bool = True) -> int:
        """How many tokens ``encode`` would give."""
        return len(self.encode(text, add_special))

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of the ids. Bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        for token in ids:
            self.token_text(token)
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it (``▁the``, ``Ġthe``, ``<0x0A>``).

        Raises:
            TokenizerError: there is no such id.
        """
        text = None
        if 0 <= token < 1 << 32:
            text = self.backend.id_to_token(token)
        if text is None:
            raise TokenizerError(f"{token} is not a token of this model. Correct the id.")
        return str(text)

    def token_id(self, text: str) -> int | None:
        """The id of a token as the vocabulary spells it; ``None`` where there is none."""
        found = self.backend.token_to_id(text)
        return None if found is None else int(found)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that the token stands for inside a text: what OpenAI's ``bytes`` field says."""
        text = self.token_text(token)
        if self._byte_level and all(letter in _LETTER_BYTES for letter in text):
            return bytes(_LETTER_BYTES[letter] for letter in text)
        if match := _BYTE.fullmatch(text):
            return bytes([int(match[1], 16)])
        return text.replace("\u2581", " ").encode()


def _checked(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise TokenizerError(
            f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read. Cut it.",
            code="too_long",
        )
    if _SURROGATE.search(text):
        raise TokenizerError("The text has half a surrogate pair in it. Send valid Unicode text.")
    return text


@lru_cache(maxsize=CACHED)
def _load(path: Path, modified_ns: int, size: int) -> Tokenizer:
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{path} can't be read as a tokenizer. Prepare the model again.", code="corrupt"
        ) from error
    backend.no_truncation()
    backend.no_padding()
    manifest = _manifest(path.parent)
    bos = manifest.get("bos_token_id")
    return Tokenizer(
        backend,
        bos_id=bos if isinstance(bos, int) else None,
        add_bos=bool(manifest.get("add_bos", False)),
        framed=manifest.get("kind") == "embedding",
    )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_byte_level(backend: Backend) -> bool:
    decoder: dict[str, Any] = json.loads(backend.decoder.__getstate__()) if backend.decoder else {}
    parts = [decoder, *decoder.get("decoders", [])]
    return any(part.get("type") == "ByteLevel" for part in parts)


def _letter_bytes() -> dict[str, int]:
    """GPT-2's letters for bytes, backwards: printable Latin-1 is itself, the rest from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


_LETTER_BYTES = _letter_bytes()
