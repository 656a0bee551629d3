"""Which scope of an API key each route takes.

One table, asked for every route in one place. A route that is not in it takes ``admin``, so that
forgetting one closes it.
"""

from __future__ import annotations

from portal.teams.models import ApiKey

Scope = ApiKey.Scope

SCOPES = {
    "models": Scope.MODELS,
    "tokenize": Scope.MODELS,
    "detokenize": Scope.MODELS,
    "chat": Scope.CHAT,
    "completions": Scope.CHAT,
    "embeddings": Scope.CHAT,
    "responses": Scope.CHAT,
    "jobs": Scope.CHAT,
    "tickets": Scope.CHAT,
    "apps": Scope.APPS,
    "runs": Scope.APPS,
    "datasets": Scope.TRAINING,
    "trainings": Scope.TRAINING,
    "teams": Scope.ADMIN,
    "keys": Scope.ADMIN,
    "usage": Scope.ADMIN,
}
"""By the first part of a route's path behind ``/v1/`` and ``/api/v1/``."""


def first_part(route: str) -> str:
    """``chat`` for ``v1/chat/completions`` and for ``/chat/completions``."""
    parts = [part for part in route.split("/") if part]
    while parts and parts[0] in ("api", "v1"):
        parts.pop(0)
    return parts[0] if parts else ""


def scope_of(route: str) -> str:
    return SCOPES.get(first_part(route), Scope.ADMIN)
