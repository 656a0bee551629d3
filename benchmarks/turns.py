"""Several sides measured in turn, and what is said of their figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one thing, in the order in which they were measured."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def as_dict(self) -> dict[str, Any]:
        """``median``, ``low``, ``high`` and the ``values``, rounded to six digits."""
        rounded = [_rounded(value) for value in self.values]
        low, high = min(rounded), max(rounded)
        return {"median": _rounded(self.median), "low": low, "high": high, "values": rounded}


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Sample]:
    """Every side once a round, one after another, every second round in the opposite order: what
    drifts slowly meets all sides alike."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(sides[name]())
    return {name: Sample(tuple(values)) for name, values in found.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of all lie at or below: always one of them, so that a
    percentile never hides the one slow step by averaging it with a fast one."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
