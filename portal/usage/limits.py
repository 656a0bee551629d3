"""How often: quotas of visitors by address and of API keys, in Redis and never in the database.

Generic cell rate algorithm on Redis' clock (throttled-py): a full quota may be used at once and
comes back evenly. When Redis can't be reached, keys pass, because their teams have budgets, and
visitors wait.

RateLimited     too often; try again after ``retry_after`` seconds
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings
from django.utils.translation import gettext as _
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from throttled import RateLimiterType, Throttled, rate_limiter
from throttled import asyncio as athrottled
from throttled.exceptions import StoreUnavailableError
from throttled.store import RedisStore

from portal.network import quota_address
from portal.teams.models import ApiKey

TIMEOUTS = {"SOCKET_TIMEOUT": 2, "SOCKET_CONNECT_TIMEOUT": 1}
PREFIX = "llmasos:limit"
OUTAGE_RETRY_S = 5
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left after this call: for the ``X-RateLimit-…`` headers. Seconds until full again."""

    limit: int
    remaining: int
    reset_after: float


class RateLimited(Exception):
    """Too often. ``retry_after`` is whole seconds, at least 1."""

    def __init__(self, message: str, *, limit: int, retry_after: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(frozen=True, slots=True)
class Quota:
    """``limit`` calls in ``seconds``, for each subject of ``kind``."""

    kind: str
    limit: int
    seconds: int

    def refusal(self, retry_after: float) -> RateLimited:
        if self.kind == "visitor":
            text = _("Visitors may run %(limit)d requests an hour. Sign up to go on.")
        else:
            text = _("This key may send %(limit)d requests a minute. Slow down a little.")
        return RateLimited(text % {"limit": self.limit}, limit=self.limit, retry_after=retry_after)


def visitors() -> Quota:
    return Quota("visitor", settings.LLMASOS.anonymous_jobs_per_hour, 3600)


def keys() -> Quota:
    return Quota("key", settings.LLMASOS.api_requests_per_minute, 60)


def check_anonymous(address: str) -> Allowance:
    """Count one job of a visitor at ``address``; raises ``RateLimited``."""
    return _check(visitors(), quota_address(address))


async def acheck_anonymous(address: str) -> Allowance:
    return await _acheck(visitors(), quota_address(address))


def check_key(key: ApiKey) -> Allowance:
    """Count one request with ``key``; raises ``RateLimited``."""
    return _check(keys(), key.pk.hex)


async def acheck_key(key: ApiKey) -> Allowance:
    return await _acheck(keys(), key.pk.hex)


def _check(quota: Quota, subject: str) -> Allowance:
    if quota.limit == 0:
        raise quota.refusal(quota.seconds)
    try:
        answer = _limiter(quota, settings.REDIS_URL).limit(f"{quota.kind}:{subject}")
    except StoreUnavailableError as error:
        return _during_outage(quota, error)
    return _judge(quota, answer)


async def _acheck(quota: Quota, subject: str) -> Allowance:
    if quota.limit == 0:
        raise quota.refusal(quota.seconds)
    try:
        answer = await _alimiter(quota, settings.REDIS_URL).limit(f"{quota.kind}:{subject}")
    except StoreUnavailableError as error:
        return _during_outage(quota, error)
    return _judge(quota, answer)


def _judge(quota: Quota, answer: rate_limiter.RateLimitResult) -> Allowance:
    if answer.limited:
        raise quota.refusal(answer.state.retry_after)
    return Allowance(quota.limit, answer.state.remaining, answer.state.reset_after)


def _during_outage(quota: Quota, error: StoreUnavailableError) -> Allowance:
    log.warning("rate_limit_unavailable", kind=quota.kind, error=str(error))
    if quota.kind == "visitor":
        raise RateLimited(
            _("The service is restarting. Try again in a moment."),
            limit=quota.limit,
            retry_after=OUTAGE_RETRY_S,
        )
    return Allowance(quota.limit, quota.limit, 0.0)


def _rate(quota: Quota) -> rate_limiter.Quota:
    period = timedelta(seconds=quota.seconds)
    return rate_limiter.per_duration(period, limit=quota.limit, burst=quota.limit)


@cache
def _limiter(quota: Quota, url: str) -> Throttled:
    retry = {"retry": Retry(NoBackoff(), 1)}  # redis-py's own would go on for seconds
    store = RedisStore(server=url, options={**TIMEOUTS, "CONNECTION_POOL_KWARGS": retry})
    how = RateLimiterType.GCRA.value
    return Throttled(using=how, quota=_rate(quota), store=store, key_prefix=PREFIX)


_in_loop: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[Quota, str], athrottled.Throttled]
] = WeakKeyDictionary()
"""Connections belong to the event loop that opened them."""


def _alimiter(quota: Quota, url: str) -> athrottled.Throttled:
    limiters = _in_loop.setdefault(asyncio.get_running_loop(), {})
    if (quota, url) not in limiters:
        retry = {"retry": AsyncRetry(NoBackoff(), 1)}
        options = {**TIMEOUTS, "CONNECTION_POOL_KWARGS": retry}
        store = athrottled.RedisStore(server=url, options=options)
        how = RateLimiterType.GCRA.value
        limiters[quota, url] = athrottled.Throttled(
            using=how, quota=_rate(quota), store=store, key_prefix=PREFIX
        )
    return limiters[quota, url]
