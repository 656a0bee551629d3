"""The API key in whose name this request acts, wherever it leads.

Ambient on purpose: whatever a request with a key calls, and whoever adds a route, its jobs count
against the key. Pages act in nobody's key, so there is none. Budgets that one endpoint forgot to
check are the classic hole.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from portal.teams.models import ApiKey, Team
from portal.usage.limits import Allowance


@dataclass(slots=True)
class Acting:
    """``requests`` and ``tokens`` are what the key had left when they were last counted."""

    key: ApiKey
    requests: Allowance | None = None
    tokens: Allowance | None = None

    def allows(self, model: str) -> bool:
        """Whether the key may use that model; unknown ones are somebody else's concern."""
        return not self.key.allowed_models or model in self.key.allowed_models


_acting: ContextVar[Acting | None] = ContextVar("llmasos_acting_key", default=None)


def act(acting: Acting | None) -> None:
    """From here on in this request; with ``None`` nobody's key any more."""
    _acting.set(acting)


def acting() -> Acting | None:
    return _acting.get()


def key_of(team: Team) -> ApiKey | None:
    """The key to bill besides ``team``: the acting one, if it is that team's."""
    found = _acting.get()
    return found.key if found is not None and found.key.team_id == team.pk else None
