"""A cache in Redis that is only a cache: while Redis is away it forgets, and nobody gets an error.

What is kept here (counters of sign-in attempts) may be lost; signing in may not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import structlog
from django.core.cache.backends.redis import RedisCache
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

OPTIONS = {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 1)}
log = structlog.get_logger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


def _or(answer: R) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Call through, or answer like an empty cache."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(*args, **kwargs)
            except RedisError as error:
                log.warning("cache_unavailable", error=str(error))
                return answer

        return call

    return decorate


class ForgivingRedisCache(RedisCache):
    """Every operation works, or did nothing."""

    @_or(True)
    def add(self, *args: Any, **kwargs: Any) -> bool:
        return bool(super().add(*args, **kwargs))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except RedisError as error:
            log.warning("cache_unavailable", error=str(error))
            return default

    @_or(None)
    def set(self, *args: Any, **kwargs: Any) -> None:
        super().set(*args, **kwargs)

    @_or(False)
    def touch(self, *args: Any, **kwargs: Any) -> bool:
        return bool(super().touch(*args, **kwargs))

    @_or(False)
    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return bool(super().delete(*args, **kwargs))

    @_or(False)
    def has_key(self, *args: Any, **kwargs: Any) -> bool:
        return bool(super().has_key(*args, **kwargs))

    def get_many(self, keys: Any, version: int | None = None) -> dict[Any, Any]:
        return {key: value for key in keys if (value := self.get(key, version=version)) is not None}

    def set_many(self, data: Any, timeout: Any = None, version: int | None = None) -> list[Any]:
        for key, value in data.items():
            self.set(key, value, timeout, version)
        return []
