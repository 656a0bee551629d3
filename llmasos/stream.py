"""An answer while it is being made: iterate for its pieces, then ask how it ended."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and made."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended: ``stop`` or ``length``, and what it used, where that is known."""

    reason: str | None = None
    usage: Usage | None = None


class Stream(Iterator[str]):
    """Pieces of text as they become certain; no piece splits a character.

    ``text`` is what came so far. After the last piece, ``reason`` says how it ended and ``usage``
    what it took. Leaving early (``close``, or the end of a ``with`` block) stops the computing.
    """

    def __init__(self, pieces: Generator[str, None, End]) -> None:
        self._pieces = pieces
        self._parts: list[str] = []
        self.reason: str | None = None
        self.usage: Usage | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while True:
            try:
                piece = next(self._pieces)
            except StopIteration as ended:
                if isinstance(ended.value, End):
                    self.reason, self.usage = ended.value.reason, ended.value.usage
                raise StopIteration from None
            if piece:
                self._parts.append(piece)
                return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._parts)

    def read(self) -> str:
        """Wait for the rest and return the whole text."""
        for _ in self:
            pass
        return self.text

    def close(self) -> None:
        """Stop it. What came is kept; closing twice does nothing."""
        self._pieces.close()
