"""When a team may spend: arithmetic only, no database and no clock.

Tokens are counted, prompt and completion alike. A job reserves its worst case before it starts and
settles for what it used, so ``spent + reserved`` never passes the limit, whatever runs at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

ALERTS = ((100, 0.995), (80, 0.8))
"""Percent that is said, and the part of the limit that is spent by then, the highest first. The
last half percent is too little for most requests, so that nobody would ever get to the end of it.
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """A month of a team or of a key, in tokens; ``limit`` ``None`` means no limit."""

    limit: int | None
    spent: int = 0
    reserved: int = 0

    @property
    def left(self) -> int | None:
        """What a further job may still reserve; never negative."""
        return None if self.limit is None else max(0, self.limit - self.spent - self.reserved)

    def allows(self, tokens: int) -> bool:
        """Whether a job with that worst case fits."""
        left = self.left
        return left is None or tokens <= left

    @property
    def percent(self) -> int:
        """Of the limit that is spent, rounded down, at most 100; 0 without a limit."""
        if self.limit is None:
            return 0
        return min(100, 100 * self.spent // self.limit) if self.limit else 100

    @property
    def alert(self) -> int:
        """The highest of ``ALERTS`` that was reached, in percent; else 0."""
        if self.limit is None:
            return 0
        reached = (percent for percent, part in ALERTS if self.spent >= self.limit * part)
        return next(reached, 0)


def worst_case(*, prompt_tokens: int, max_tokens: int, n: int) -> int:
    """The most that one job can be billed: its prompt once, and every choice to its end."""
    return prompt_tokens + max_tokens * n


def month_of(moment: datetime) -> datetime:
    """The start of the calendar month, UTC, that ``moment`` lies in."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def hour_of(moment: datetime) -> datetime:
    """The start of the hour, UTC, that ``moment`` lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def seconds_to_next_month(moment: datetime) -> int:
    """Until the budget is fresh again; at least 1."""
    start = month_of(moment)
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return max(1, int((following - moment).total_seconds()))


def app_of(source: str) -> str:
    """What a job's source is booked as: an app without its version."""
    return source.partition("@")[0]
