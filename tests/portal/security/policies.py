"""Who may see what: one line for each route and socket message. What is not here fails the tests.

public      says nothing about any team
signed_in   for whoever has signed in, about the own team alone
owned       about one thing of a team: 404 for everybody else, operators too
operators   404 for everybody else; strangers may be asked to sign in
key         with an API key, about its team alone
key_owned   with an API key, one thing of its team: 404 for other keys
"""

from __future__ import annotations

from collections.abc import Iterator

from django.urls import URLPattern, URLResolver, get_resolver

POLICIES = {
    "": "public",
    "healthz": "public",
    "readyz": "public",
    "metrics": "public",
    "operator/<str:token>": "public",
    "i18n/setlang/": "public",
    "playground/": "public",
    "playground/c/<uuid:conversation_id>/": "owned",
    "playground/conversations": "public",
    "playground/conversations/<uuid:conversation_id>": "owned",
    "playground/conversations/<uuid:conversation_id>/restore": "owned",
    "playground/jobs": "public",
    "playground/jobs/<slug:job_id>/cancel": "owned",
    "playground/tokens": "public",
    "gallery/": "public",
    "gallery/runs/<uuid:run_id>": "owned",
    "gallery/<slug:slug>": "public",
    "gallery/<slug:slug>/run": "public",
    "models/": "public",
    "models/<str:model_id>/part/": "public",
    "models/<str:model_id>/lighter/": "operators",
    "models/<str:model_id>/remove/": "operators",
    "teams/": "signed_in",
    "teams/keys": "signed_in",
    "teams/keys/<uuid:key_id>/revoke": "owned",
    "teams/keys/<uuid:key_id>": "owned",
    "teams/keys/<uuid:key_id>/rotate": "owned",
    "teams/choose": "signed_in",
    "teams/all": "signed_in",
    "teams/new": "signed_in",
    "teams/log": "signed_in",
    "teams/limits": "signed_in",
    "teams/limits/budget": "signed_in",
    "teams/limits/retention": "signed_in",
    "teams/usage": "signed_in",
    "teams/usage.csv": "signed_in",
    "teams/settings": "signed_in",
    "teams/settings/name": "signed_in",
    "teams/settings/owner": "signed_in",
    "teams/settings/delete": "signed_in",
    "teams/deleted/<uuid:team_id>/restore": "owned",
    "teams/members": "signed_in",
    "teams/members/<int:member_id>/role": "owned",
    "teams/members/<int:member_id>/remove": "owned",
    "teams/invitations/<uuid:invitation_id>/revoke": "owned",
    "teams/join/<str:token>": "public",
    "operations/": "operators",
    "operations/live": "operators",
    "operations/drain": "operators",
    "developers/": "public",
    "v1/models": "key",
    "v1/models/<path:model_id>": "key",
    "v1/chat/completions": "key",
    "v1/completions": "key",
    "v1/embeddings": "key",
    "v1/responses": "key",
    "v1/responses/<response_id>": "key_owned",
    "v1/responses/<response_id>/cancel": "key_owned",
    "v1/responses/<response_id>/input_items": "key_owned",
    "api/v1/jobs": "key",
    "api/v1/jobs/<job_id>": "key_owned",
    "api/v1/jobs/<job_id>/cancel": "key_owned",
    "api/v1/jobs/<job_id>/events": "key_owned",
    "api/v1/apps": "key",
    "api/v1/apps/<slug>": "key",
    "api/v1/apps/<slug>/runs": "key",
    "api/v1/runs/<run_id>": "key_owned",
    "api/v1/models": "key",
    "api/v1/models/<model_id>": "key",
    "api/v1/tokenize": "key",
    "api/v1/detokenize": "key",
    "api/v1/teams": "key",
    "api/v1/teams/<team_id>": "key_owned",
    "api/v1/keys": "key",
    "api/v1/keys/<key_id>": "key_owned",
    "api/v1/usage": "key",
    "api/v1/tickets": "key",
    "api/v1/openapi.json": "public",
    "v1/openapi.json": "public",
    "^(?:api|v1)(?:/|$)": "public",
}
PREFIXES = {"accounts/": "public", "admin/": "operators"}
"""Routes of libraries, all of one kind."""

MESSAGES = {"watch": "owned", "cancel": "owned", "ack": "public", "unwatch": "public",
            "ping": "public"}  # fmt: skip
"""Of ``/ws/jobs``."""


def routes() -> set[str]:
    """Every pattern of the URL configuration."""
    return set(_walk(get_resolver().url_patterns, ""))


def _walk(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[str]:
    for pattern in patterns:
        here = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield here
        else:
            yield from _walk(pattern.url_patterns, here)


def policy(route: str) -> str | None:
    for prefix, found in PREFIXES.items():
        if route.startswith(prefix):
            return found
    return POLICIES.get(route)
