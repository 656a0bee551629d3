"""The growing ends of job logs: one blocking read per process for all of them.

Every watched job has a ``Tail``: its newest entries, shared by all who follow it. Each follower has
its own cursor; one that falls behind the buffer reads the log itself, so memory is bounded however
slow a reader is. A job that is added interrupts the blocking read with ``CLIENT UNBLOCK``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings
from redis.exceptions import RedisError

from inference_workers.contract import Entry
from inference_workers.queue import JobLog, aconnect
from inference_workers.queue.clients import AsyncRedis
from portal.jobs import links

BUFFER_ENTRIES = 128
READ_COUNT = 128
BLOCK_MS = 5000
LINGER_S = 30.0
RETRY_S = (0.02, 0.05, 0.1, 0.25, 0.5)
logger = structlog.get_logger(__name__)


class Tail:
    """The last entries of one job's log, numbers ``first`` to ``last`` without gaps."""

    def __init__(self, job_id: str, after: int) -> None:
        self.job_id = job_id
        self.last = after
        self.ended = False
        self.followers = 0
        self._entries: deque[Entry] = deque(maxlen=BUFFER_ENTRIES)
        self._waiting: set[asyncio.Future[None]] = set()

    def extend(self, entries: Iterable[Entry]) -> None:
        """Take what was read. Numbers already seen are dropped: a restarted log repeats them."""
        for entry in entries:
            if entry.seq <= self.last:
                continue
            if entry.seq != self.last + 1:
                self._entries.clear()
            self._entries.append(entry)
            self.last = entry.seq
            self.ended = self.ended or entry.terminal
        for waiting in self._waiting:
            _wake(waiting)

    def since(self, after: int) -> list[Entry] | None:
        """Entries above ``after``; ``None`` when the buffer doesn't reach back so far."""
        first = self.last - len(self._entries) + 1
        if after + 1 < first:
            return None
        # from the right end, because a reader that keeps up wants the newest of many
        return [self._entries[-back] for back in range(self.last - after, 0, -1)]

    async def wait(self, after: int, seconds: float) -> bool:
        """Until there is an entry above ``after`` or the end is known; ``False``: timed out."""
        if self.last > after or self.ended:
            return True
        # By hand, because it happens for each token of each reader, and asyncio.wait costs more.
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, waiting)
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)
        return self.last > after or self.ended


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class TailHub:
    """All tails of one event loop, and the task that feeds them while there are any."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._tails: dict[str, Tail] = {}
        self._task: asyncio.Task[None] | None = None
        self._client_id: int | None = None
        self._round = 0
        self._blocked = False
        self._came = asyncio.Event()

    @contextlib.asynccontextmanager
    async def follow(self, job_id: str, after: int) -> AsyncIterator[Tail]:
        """The job's tail, fed from ``after`` at the latest."""
        tail = self._tails.get(job_id)
        if tail is None:
            tail = self._tails[job_id] = Tail(job_id, after)
            self._start()
        tail.followers += 1
        try:
            await self._interrupt()
            yield tail
        finally:
            tail.followers -= 1
            if not tail.followers:
                self._tails.pop(job_id, None)

    def _start(self) -> None:
        self._came.set()
        if self._task is None:
            self._task = asyncio.create_task(self._feed(), name="job-log-reader")

    async def _interrupt(self) -> None:
        """Let the blocking read begin again, with the new job in it."""
        reading = self._round
        while self._blocked and self._round == reading and self._client_id is not None:
            try:
                if await links.unhurt(links.aclient().client_unblock(self._client_id)):
                    return
            except (RedisError, OSError):
                return  # the reader has lost its connection too, and starts over
            await asyncio.sleep(0.001)

    async def _feed(self) -> None:
        client = aconnect(self._url, blocking=True, retries=0)
        failures = 0
        self._client_id = None
        try:
            while cursors := await self._next_cursors():
                try:
                    await self._read(client, cursors)
                    failures = 0
                except (RedisError, OSError) as error:
                    if not failures:
                        logger.warning("log_reader_lost_redis", error=str(error))
                    self._client_id = None
                    await client.connection_pool.disconnect()
                    await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                    failures += 1
        finally:
            # Before anything is awaited: whoever comes now starts another feed.
            self._task = None
            self._client_id = None
            # Also after a cancelled read, whose answer would be taken for the next one's.
            await client.connection_pool.disconnect()

    async def _next_cursors(self) -> dict[str, int]:
        """What to read next. Without readers the connection is kept a while: it costs more to open
        than a short job's whole log costs to read."""
        if not (cursors := self._cursors()):
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), LINGER_S)
            cursors = self._cursors()
        return cursors

    def _cursors(self) -> dict[str, int]:
        return {tail.job_id: tail.last for tail in self._tails.values() if not tail.ended}

    async def _read(self, client: AsyncRedis, cursors: dict[str, int]) -> None:
        if self._client_id is None:
            self._client_id = await client.client_id()
            return
        self._round += 1
        self._blocked = True
        try:
            found = await JobLog(None, aredis=client).aread_many(
                cursors, block_ms=BLOCK_MS, count=READ_COUNT
            )
        finally:
            self._blocked = False
        for job_id, entries in found.items():
            if tail := self._tails.get(job_id):
                tail.extend(entries)


_in_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, TailHub] = WeakKeyDictionary()


def hub() -> TailHub:
    """The running loop's hub."""
    loop = asyncio.get_running_loop()
    found = _in_loop.get(loop)
    if found is None:
        found = _in_loop[loop] = TailHub(settings.REDIS_URL)
    return found
