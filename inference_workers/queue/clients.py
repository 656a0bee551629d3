"""Connections to Redis: the one place that knows about its URLs and timeouts.

``redis://``, ``rediss://`` and ``unix:///path/redis.sock`` are redis-py's forms; Celery writes the
last one ``redis+socket://``. Both spellings are accepted everywhere.

redis-py gives up on a read after 5 seconds by default, so a client for longer blocking reads is
made with ``blocking=True``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

AsyncRedis = redis.asyncio.Redis


def connect(url: str, *, blocking: bool = False, retries: int = 3) -> redis.Redis:
    """A thread-safe client that answers with strings.

    ``retries`` reconnects and tries again that often; every script here may run twice.
    """
    backoff = ExponentialBackoff(cap=0.5, base=0.05)
    client: redis.Redis = redis.Redis.from_url(
        client_url(url), retry=Retry(backoff, retries), **_options(blocking)
    )
    return client


def aconnect(url: str, *, blocking: bool = False, retries: int = 3) -> AsyncRedis:
    """The same for one event loop."""
    backoff = ExponentialBackoff(cap=0.5, base=0.05)
    client: AsyncRedis = redis.asyncio.Redis.from_url(
        client_url(url), retry=AsyncRetry(backoff, retries), **_options(blocking)
    )
    return client


def _options(blocking: bool) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_connect_timeout": 5,
        "socket_timeout": None if blocking else 5,
    }


def client_url(url: str) -> str:
    """``url`` as redis-py writes it."""
    return _respell(url, "redis+socket", "unix", {"virtual_host": "db"})


def broker_url(url: str) -> str:
    """``url`` as Celery (kombu) writes it."""
    return _respell(url, "unix", "redis+socket", {"db": "virtual_host"})


def _respell(url: str, scheme: str, other: str, options: dict[str, str]) -> str:
    parts = urlsplit(url)
    if parts.scheme != scheme:
        return url
    query = urlencode([(options.get(key, key), value) for key, value in parse_qsl(parts.query)])
    return f"{other}://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
