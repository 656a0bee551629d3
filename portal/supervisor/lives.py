"""When a child that ended is started again. Pure: the caller tells the time (seconds).

down ──started──▶ up ──ended──▶ down, due after a delay
                   └─stopping, then ended──▶ gone
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FIRST_DELAY_S = 0.0
"""The first crash of a child that ran well costs no wait: somebody is watching a stream."""

NEXT_DELAY_S, FACTOR, LONGEST_DELAY_S = 1.0, 2.0, 30.0
HEALTHY_AFTER_S = 60.0
"""A child that lived this long starts anew with no delay."""

EXIT_REFUSED = 2
"""A worker's word that a setting or its model is wrong: trying again soon won't help."""

REFUSED_DELAY_S = 60.0

Phase = Literal["down", "up", "stopping", "gone"]


@dataclass(slots=True)
class Life:
    """One child's. ``due`` is when it should start, ``crashes`` how many there were in a row."""

    phase: Phase = "down"
    due: float = 0.0
    since: float = 0.0
    crashes: int = 0

    def wants_start(self, now: float) -> bool:
        return self.phase == "down" and now >= self.due

    def started(self, now: float) -> None:
        self.phase, self.since = "up", now

    def stop(self) -> None:
        """It is no longer wanted."""
        self.phase = "stopping" if self.phase in ("up", "stopping") else "gone"

    def ended(self, code: int, now: float) -> float | None:
        """It ended; after how many seconds it starts again, or ``None`` if it should not."""
        if self.phase == "stopping":
            self.phase = "gone"
            return None
        if now - self.since >= HEALTHY_AFTER_S:
            self.crashes = 0
        delay = REFUSED_DELAY_S if code == EXIT_REFUSED else backoff(self.crashes)
        self.phase, self.due = "down", now + delay
        self.crashes += 1
        return delay


def backoff(crashes: int) -> float:
    """Seconds to wait before a start, after so many earlier crashes in a row."""
    if crashes == 0:
        return FIRST_DELAY_S
    return float(min(LONGEST_DELAY_S, NEXT_DELAY_S * FACTOR ** min(crashes - 1, 16)))
