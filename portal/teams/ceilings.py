"""Limits of a key that somebody who manages its team has set: its maker may narrow, not widen them.

They are kept with the key, as ``ApiKey.ceilings``: the widest that each such term may be. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Terms = Mapping[str, Any]
"""Of a key, by the names of its fields."""


def ceilings_after(known: Terms, *, before: Terms, after: Terms, own: bool) -> dict[str, Any]:
    """What holds once somebody who manages the team has saved ``after`` over ``before``.

    On another's key it is what they changed, and from then on whatever such people make of it; what
    somebody sets on their ``own`` key is nobody else's limit. Lifting a limit lets it go.
    """
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in after.items()
        if value not in (None, []) and (name in known or (not own and value != before[name]))
    }


def exceeded(ceilings: Terms, terms: Terms) -> str | None:
    """The first of ``terms`` that goes beyond what it may be."""
    return next((name for name, most in ceilings.items() if _exceeds(terms[name], most)), None)


def _exceeds(value: Any, most: Any) -> bool:
    if isinstance(most, list):
        return not value or not set(value) <= set(most)
    if isinstance(most, str):
        most = datetime.fromisoformat(most)
    return value is None or bool(value > most)
