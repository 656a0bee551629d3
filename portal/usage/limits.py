"""How often and how much: quotas of visitors by address and of API keys, in Redis and never in the
database.

Generic cell rate algorithm on Redis' clock (throttled-py): a full quota may be used at once and
comes back evenly. When Redis can't be reached, keys pass, because their teams have budgets, and
visitors wait. Redis is asked from threads, also for async callers: an event loop with too much to
do takes its own lateness for Redis' silence, and just then everybody would pass.

RateLimited     too often; try again after ``retry_after`` seconds
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache

import structlog
from django.conf import settings
from django.utils.translation import gettext as _
from redis.backoff import NoBackoff
from redis.retry import Retry
from throttled import RateLimiterType, Throttled, rate_limiter
from throttled.exceptions import StoreUnavailableError
from throttled.store import RedisStore

from portal.network import quota_address
from portal.teams.models import ApiKey

TIMEOUTS = {"SOCKET_TIMEOUT": 2, "SOCKET_CONNECT_TIMEOUT": 1}
PREFIX = "llmasos:limit"
OUTAGE_RETRY_S = 5
QUOTAS_KEPT = 256
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left after this call: for the ``X-RateLimit-…`` headers. Seconds until full again."""

    limit: int
    remaining: int
    reset_after: float


class RateLimited(Exception):
    """Too often, or too much. ``retry_after`` is whole seconds, at least 1; ``kind`` says of which
    quota, and ``left`` what there is of it."""

    def __init__(
        self, message: str, *, limit: int, retry_after: float, kind: str = "visitor"
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.kind = kind
        self.retry_after = max(1, math.ceil(retry_after))
        self.left = Allowance(limit, 0, float(self.retry_after))


@dataclass(frozen=True, slots=True)
class Quota:
    """``limit`` of something in ``seconds``, for each subject of ``kind``."""

    kind: str
    limit: int
    seconds: int

    def refusal(self, retry_after: float, cost: int = 1) -> RateLimited:
        if self.kind == "visitor":
            text = _("Visitors may run %(limit)d requests an hour. Sign up to go on.")
        elif self.kind == "key":
            text = _("This key may send %(limit)d requests a minute. Slow down a little.")
        elif cost > self.limit:
            text = _(
                "This request may use up to %(cost)d tokens, and its key may use %(limit)d a "
                "minute. Ask for fewer tokens."
            )
        else:
            text = _(
                "This key may use %(limit)d tokens a minute, and this request up to %(cost)d. "
                "Slow down a little, or ask for fewer tokens."
            )
        said = text % {"limit": self.limit, "cost": cost}
        return RateLimited(said, limit=self.limit, retry_after=retry_after, kind=self.kind)


def visitors() -> Quota:
    return Quota("visitor", settings.LLMASOS.anonymous_jobs_per_hour, 3600)


def requests_of(key: ApiKey) -> Quota:
    """The key's own limit, and never more than the house's."""
    house: int = settings.LLMASOS.api_requests_per_minute
    return Quota("key", min(key.requests_per_minute or house, house), 60)


def tokens_of(key: ApiKey) -> Quota | None:
    """Tokens a minute, counted by each request's worst case; ``None``: no limit."""
    return Quota("key_tokens", key.tokens_per_minute, 60) if key.tokens_per_minute else None


def check_anonymous(address: str) -> Allowance:
    """Count one job of a visitor at ``address``; raises ``RateLimited``."""
    return _check(visitors(), quota_address(address))


async def acheck_anonymous(address: str) -> Allowance:
    return await asyncio.to_thread(check_anonymous, address)


def check_key(key: ApiKey) -> Allowance:
    """Count one request with ``key``; raises ``RateLimited``."""
    return _check(requests_of(key), key.pk.hex)


def check_tokens(key: ApiKey, tokens: int) -> Allowance | None:
    """Count a job's worst case with ``key``; ``None`` without a limit. Raises ``RateLimited``."""
    quota = tokens_of(key)
    return _check(quota, key.pk.hex, max(1, tokens)) if quota else None


async def alook_at_tokens(key: ApiKey) -> Allowance | None:
    """What the key has left of its tokens, counting nothing; ``None`` without a limit."""
    quota = tokens_of(key)
    return await asyncio.to_thread(_look, quota, key.pk.hex) if quota else None


def _look(quota: Quota, subject: str) -> Allowance:
    try:
        state = _limiter(quota, settings.REDIS_URL).peek(f"{quota.kind}:{subject}")
    except StoreUnavailableError as error:
        return _during_outage(quota, error)
    return Allowance(quota.limit, state.remaining, state.reset_after)


def headers_of(requests: Allowance | None, tokens: Allowance | None) -> dict[str, str]:
    """What is left, under OpenAI's names; nothing about what has no limit."""
    found: dict[str, str] = {}
    for name, allowance in (("requests", requests), ("tokens", tokens)):
        if allowance is not None:
            found[f"x-ratelimit-limit-{name}"] = str(allowance.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(allowance.remaining)
            found[f"x-ratelimit-reset-{name}"] = f"{allowance.reset_after:.3f}s"
    return found


def _check(quota: Quota, subject: str, cost: int = 1) -> Allowance:
    if quota.limit == 0:
        raise quota.refusal(quota.seconds)
    try:
        answer = _limiter(quota, settings.REDIS_URL).limit(f"{quota.kind}:{subject}", cost)
    except StoreUnavailableError as error:
        return _during_outage(quota, error)
    return _judge(quota, answer, cost)


def _judge(quota: Quota, answer: rate_limiter.RateLimitResult, cost: int = 1) -> Allowance:
    state = answer.state
    if not answer.limited:
        return Allowance(quota.limit, state.remaining, state.reset_after)
    refusal = quota.refusal(quota.seconds if cost > quota.limit else state.retry_after, cost)
    refusal.left = Allowance(quota.limit, min(quota.limit, state.remaining), state.reset_after)
    raise refusal


def _during_outage(quota: Quota, error: StoreUnavailableError) -> Allowance:
    log.warning("rate_limit_unavailable", kind=quota.kind, error=str(error))
    if quota.kind == "visitor":
        raise RateLimited(
            _("The service is restarting. Try again in a moment."),
            limit=quota.limit,
            retry_after=OUTAGE_RETRY_S,
            kind=quota.kind,
        )
    return Allowance(quota.limit, quota.limit, 0.0)


def _rate(quota: Quota) -> rate_limiter.Quota:
    period = timedelta(seconds=quota.seconds)
    return rate_limiter.per_duration(period, limit=quota.limit, burst=quota.limit)


@cache
def _store(url: str) -> RedisStore:
    """One pool of connections for all quotas, of which there may be one for each key."""
    retry = {"retry": Retry(NoBackoff(), 1)}  # redis-py's own would go on for seconds
    return RedisStore(server=url, options={**TIMEOUTS, "CONNECTION_POOL_KWARGS": retry})


@lru_cache(maxsize=QUOTAS_KEPT)
def _limiter(quota: Quota, url: str) -> Throttled:
    how = RateLimiterType.GCRA.value
    return Throttled(using=how, quota=_rate(quota), store=_store(url), key_prefix=PREFIX)
