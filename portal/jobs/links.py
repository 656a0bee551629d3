"""This process' connections to Redis: one pool for threads, one for each event loop."""

from __future__ import annotations

import asyncio
from functools import cache
from weakref import WeakKeyDictionary

import redis
from django.conf import settings

from inference_workers.queue import FairQueue, JobLog, Leases, aconnect, connect
from inference_workers.queue.clients import AsyncRedis


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


def aqueue() -> FairQueue:
    return FairQueue(None, aredis=aclient())


def alog() -> JobLog:
    return JobLog(None, aredis=aclient())
