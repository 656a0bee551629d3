"""How many prompt tokens a step may take beside running streams: as many as the time allows.

Every stream waits for a step that also computes a part of somebody's prompt. What a prompt's token
costs depends on the model, the machine and how long the prompt already is, so it is learnt from the
steps' own times. Pure: it is told those times and has no clock.
"""

from __future__ import annotations

LONGEST = 2.1
"""A step with a part of a prompt may take so many times as long as one without. Of such steps more
than half is the prompt's, so its first token comes less than twice as late as alone."""
PATIENCE = 0.12
"""Seconds that a step may always take: with few streams a step without a prompt is so short that
a multiple of it would hold the prompt up for what no reader notices."""
BEGINNING = 64
"""Prompt tokens beside others before anything is known."""
LEAST_TOKENS = 16
"""Of a part of a prompt that says what its tokens cost: of shorter ones the step says little."""


class Pace:
    """Learns with ``took``, answers with ``beside``. Times are in seconds."""

    def __init__(self) -> None:
        self._alone: dict[int, float] = {}
        self._token: float | None = None

    def beside(self, streams: int) -> int:
        """Prompt tokens that a step of so many decoding streams may take."""
        alone = self._without(streams)
        if alone is None or self._token is None:
            return BEGINNING
        return int((max(LONGEST * alone, PATIENCE) - alone) / self._token)

    def took(self, streams: int, tokens: int, seconds: float) -> None:
        """A step of ``streams`` decoding streams and ``tokens`` of prompts took so long."""
        if not streams:
            return
        if not tokens:
            self._alone[streams] = _towards(self._alone.get(streams), seconds, rate=0.25)
            return
        alone = self._without(streams)
        if alone is not None and tokens >= LEAST_TOKENS:
            prompt = max(seconds - alone, seconds / 8)
            self._token = _towards(self._token, prompt / tokens, rate=0.3)

    def _without(self, streams: int) -> float | None:
        """What a step of so many streams takes without a prompt, or of the number next to it."""
        if streams in self._alone:
            return self._alone[streams]
        nearest = min(self._alone, key=lambda known: abs(known - streams), default=None)
        return None if nearest is None else self._alone[nearest]


def _towards(known: float | None, found: float, *, rate: float) -> float:
    """A running mean in which no single step, held up by another process say, counts for much."""
    if known is None:
        return found
    return known + rate * (min(max(found, known / 2), known * 1.5) - known)
