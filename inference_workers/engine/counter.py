"""Random numbers by counting: a function of where they are drawn, so nothing has to be kept."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def uniform(seed: int, choice: int, index: int) -> float:
    """A number in (0, 1) from a counter: three rounds of splitmix64 (Steele, Lea, Flood 2014)."""
    state = _mix(seed)
    state = _mix(state ^ _mix(choice + 0x9E3779B97F4A7C15))
    state = _mix(state ^ _mix(index + 0xBF58476D1CE4E5B9))
    return ((state >> 12) + 0.5) * 2.0**-52


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
