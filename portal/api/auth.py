"""Who calls: a team's API key in the ``Authorization`` header. What a key may not do ends here.

Every route with ``auth=KeyAuth()`` passes through: is the key good (401), may it do this kind of
thing (403), and not too often (429)? From here on the request acts for the key, so that jobs, down
where they are made, are held to its models (403), its tokens a minute and its budget (429).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from ninja.security import HttpBearer

from portal.accounts.models import User
from portal.api import last_use, revocation
from portal.api.errors import ApiError
from portal.api.scopes import scope_of
from portal.teams.keys import KeyRejected, open_key
from portal.teams.models import ApiKey, Team
from portal.threads import in_thread
from portal.usage import acting
from portal.usage.acting import Acting
from portal.usage.limits import Allowance, RateLimited, alook_at_tokens, check_key, headers_of


@dataclass(frozen=True, slots=True)
class Caller:
    key: ApiKey
    team: Team
    user: User
    acting: Acting

    async def headers(self) -> dict[str, str]:
        """What is left to the key now, of requests and of tokens."""
        tokens = self.acting.tokens or await alook_at_tokens(self.key)
        return headers_of(self.acting.requests, tokens)


class KeyAuth(HttpBearer):
    """``Authorization: Bearer llm_…``; ``request.auth`` becomes a ``Caller``."""

    async def __call__(self, request: HttpRequest) -> Caller:
        match = request.resolver_match
        scope = scope_of(match.route if match else "")
        try:
            key, counted = await _open(_secret(request), scope)
        except KeyRejected as error:
            raise rejected(error) from None
        requests = counted.left if isinstance(counted, RateLimited) else counted
        caller = Caller(key, key.team, key.created_by, Acting(key, requests))
        request.auth = caller  # type: ignore[attr-defined]  # its limits go onto refusals as well
        if counted is None:
            raise _lacking(key, scope)
        if isinstance(counted, RateLimited):
            raise too_often(counted) from counted
        acting.act(caller.acting)
        revocation.watch(request, key)
        last_use.note(key)
        return caller

    async def authenticate(self, request: HttpRequest, token: str) -> Any:  # pragma: no cover
        raise NotImplementedError("__call__ does it")


def _secret(request: HttpRequest) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise ApiError(
            401,
            "Give your team's API key in the header 'Authorization: Bearer llm_…'. "
            "Keys are made on the team's page.",
            code="invalid_api_key",
        )
    return secret


@in_thread
def _open(secret: str, scope: str) -> tuple[ApiKey, Allowance | RateLimited | None]:
    """The key, and what became of counting this request; ``None`` where it lacks the scope, which
    doesn't count. One visit to a thread for both, because each costs more than either does."""
    key = open_key(secret)
    if scope not in key.scopes:
        return key, None
    try:
        return key, check_key(key)
    except RateLimited as error:
        return key, error


def _lacking(key: ApiKey, scope: str) -> ApiError:
    return ApiError(
        403,
        f"This API key lacks the scope '{scope}'; it has: {', '.join(key.scopes)}. Use "
        "another key, or have this one changed on the team's page.",
        code="insufficient_scope",
    )


def rejected(error: KeyRejected) -> ApiError:
    return ApiError(401, str(error), code="invalid_api_key")


def too_often(error: RateLimited) -> ApiError:
    """A quota's refusal in OpenAI's words; the headers say how much there is."""
    requests = error.left if error.kind == "key" else None
    tokens = error.left if error.kind == "key_tokens" else None
    headers = {"Retry-After": str(error.retry_after)} | headers_of(requests, tokens)
    return ApiError(429, str(error), code="rate_limit_exceeded", headers=headers)


KEY = KeyAuth()
