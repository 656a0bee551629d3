"""This process' connections to Redis: one pool for threads, one for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import cache
from typing import TypeVar
from weakref import WeakKeyDictionary

import redis
from django.conf import settings

from inference_workers.queue import FairQueue, JobLog, Leases, aconnect, connect
from inference_workers.queue.clients import AsyncRedis

T = TypeVar("T")


@cache
def _client(url: str) -> redis.Redis:
    return connect(url, retries=1)


def client() -> redis.Redis:
    return _client(settings.REDIS_URL)


def queue() -> FairQueue:
    return FairQueue(client())


def log() -> JobLog:
    return JobLog(client())


def leases() -> Leases:
    return Leases(client())


_in_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncRedis] = WeakKeyDictionary()


def aclient() -> AsyncRedis:
    """Connections belong to the event loop that opened them."""
    loop = asyncio.get_running_loop()
    found = _in_loop.get(loop)
    if found is None:
        found = _in_loop[loop] = aconnect(settings.REDIS_URL, retries=1)
    return found


async def unhurt(call: Awaitable[T]) -> T:
    """The answer of a Redis call that goes on to its end even if we are cancelled meanwhile.

    redis-py (8.1) can swallow a cancellation, so that its caller runs on; and a connection whose
    reading was interrupted may give its answer to the next one.
    """
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


def aqueue() -> FairQueue:
    return FairQueue(None, aredis=aclient())


def alog() -> JobLog:
    return JobLog(None, aredis=aclient())
