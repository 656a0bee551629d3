"""Who calls: a team's API key in the ``Authorization`` header, and how often it may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from channels.db import database_sync_to_async
from django.http import HttpRequest
from ninja.security import HttpBearer

from portal.accounts.models import User
from portal.api.errors import ApiError
from portal.teams.models import ApiKey, Team
from portal.teams.services import authenticate_key
from portal.usage.limits import Allowance, RateLimited, acheck_key


@dataclass(frozen=True, slots=True)
class Caller:
    key: ApiKey
    team: Team
    user: User
    allowance: Allowance

    def headers(self) -> dict[str, str]:
        """What is left of the key's requests, under OpenAI's names."""
        return {
            "x-ratelimit-limit-requests": str(self.allowance.limit),
            "x-ratelimit-remaining-requests": str(self.allowance.remaining),
            "x-ratelimit-reset-requests": f"{self.allowance.reset_after:.3f}s",
        }


class KeyAuth(HttpBearer):
    """``Authorization: Bearer llm_…``; ``request.auth`` becomes a ``Caller``."""

    async def __call__(self, request: HttpRequest) -> Caller:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise ApiError(
                401,
                "Give your team's API key in the header 'Authorization: Bearer llm_…'. "
                "Keys are made on the team's page.",
                code="invalid_api_key",
            )
        key = await database_sync_to_async(authenticate_key)(secret)
        if key is None:
            raise ApiError(
                401,
                "This API key is mistyped or revoked. Make a new one on the team's page.",
                code="invalid_api_key",
            )
        return Caller(key, key.team, key.created_by, await self._allowance(key))

    @staticmethod
    async def _allowance(key: ApiKey) -> Allowance:
        try:
            return await acheck_key(key)
        except RateLimited as error:
            raise ApiError(
                429,
                str(error),
                code="rate_limit_exceeded",
                headers={
                    "Retry-After": str(error.retry_after),
                    "x-ratelimit-limit-requests": str(error.limit),
                    "x-ratelimit-remaining-requests": "0",
                },
            ) from error

    async def authenticate(self, request: HttpRequest, token: str) -> Any:  # pragma: no cover
        raise NotImplementedError("__call__ does it")


KEY = KeyAuth()
