"""A sequence being completed: its tokens, how many are computed, where its blocks are."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Request:
    """One choice of one job. There is no prefill and no decode: ``computed`` catches up with
    ``len(tokens)``, and each time it has, one token is sampled.

    ``salts`` are ``(salt, length)`` pairs from the first token on, for the prefix cache; ``own`` is
    the salt of everything after them; ``pinned`` tokens from the first on are to stay cached.
    ``hashes`` are those of the full blocks known so far.
    ``scored`` counts prompt tokens whose log-probabilities are known, ``None`` when not asked.
    """

    job: str
    choice: int
    tokens: list[int]
    prompt: int
    salts: tuple[tuple[str, int], ...] = ()
    own: str = ""
    pinned: int = 0
    arrival: int = 0
    leader: Request | None = None
    scored: int | None = None
    status: Status = Status.WAITING
    computed: int = 0
    reused: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt

    @property
    def unscored(self) -> bool:
        """Whether prompt tokens still need their log-probabilities: then all must be computed."""
        return self.scored is not None and self.scored < self.prompt - 1
