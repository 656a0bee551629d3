"""The one way to read a job: ``events``, from any ``seq``, live or long recorded.

Entries come as they were logged, never merged or split, each number once and in order, so the last
``seq`` that somebody has seen is good on any process at any time. Between entries come notices,
which say why nothing comes; they are computed when read and have no number.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, Literal
from weakref import WeakValueDictionary

import structlog
from django.db import DatabaseError
from redis.exceptions import RedisError

from inference_workers.contract import Entry
from inference_workers.queue import JobState, Keys, Loading
from portal.jobs import archive, links, retention
from portal.jobs.models import Job
from portal.jobs.services import note_read
from portal.jobs.tail import Tail, hub
from portal.metrics import STREAMS
from portal.threads import in_thread

FIRST_NOTICE_S = 0.06
NOTICE_S = 0.5
KEEPALIVE_S = 15.0
"""How long nothing may come before a proxy takes the connection for dead."""
PAGE = 32
"""Entries that a reader holds at a time, however slow it is."""
logger = structlog.get_logger(__name__)
_noting: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Notice:
    """Why nothing comes. ``position`` 1 is next; ``fraction`` of a model that is loading.

    ``silent``: no other reason than before, but nothing has been said for ``KEEPALIVE_S``.
    """

    state: Literal["queued", "loading", "resuming", "silent"]
    position: int | None = None
    fraction: float | None = None


SILENT = Notice("silent")


async def events(job: Job, after: int = 0) -> AsyncGenerator[Entry | Notice]:
    """Entries with a ``seq`` above ``after`` until the terminal one, and notices in between.

    Ends without an entry when the terminal one is not above ``after``. Close it (``aclosing``) when
    you leave early.
    """
    with STREAMS.track_inprogress():
        if job.state != Job.State.OPEN:
            async with aclosing(_replay(await _recorded(job.pk, after) or iter(()))) as entries:
                async for entry in entries:
                    _note_end(job, entry)
                    yield entry
            return
        async with (
            hub().follow(job.pk.hex, after) as tail,
            aclosing(_follow(job, tail, after)) as items,
        ):
            async for item in items:
                _note_end(job, item)
                yield item


def _note_end(job: Job, item: Entry | Notice) -> None:
    """Before it is handed over, because a reader who has the end doesn't come back to us."""
    if job.fleeting and isinstance(item, Entry) and item.terminal:
        task = asyncio.get_running_loop().create_task(_note_read(job))
        _noting.add(task)
        task.add_done_callback(_noting.discard)


async def _note_read(job: Job) -> None:
    try:
        await in_thread(note_read)(job=job)
    except DatabaseError as error:  # it goes when its time is up
        logger.warning("read_not_noted", job=job.pk.hex, error=str(error))


async def _follow(job: Job, tail: Tail, cursor: int) -> AsyncGenerator[Entry | Notice]:
    """Live entries; when the log is gone because the row has it, the rest from there."""
    said: Notice | None = None
    patience, spoke = FIRST_NOTICE_S, monotonic()
    while True:
        batch = await _next(tail, cursor)
        for entry in batch:
            cursor = entry.seq
            yield entry
            if entry.terminal:
                return
        if batch:
            said, patience, spoke = None, NOTICE_S, monotonic()
            continue
        if tail.ended and tail.last <= cursor:
            return
        if tail.since(cursor) is None:
            await asyncio.sleep(FIRST_NOTICE_S)  # behind the buffer, and the log didn't answer
        elif await tail.wait(cursor, patience):
            continue
        patience = NOTICE_S
        notice = await _look(job, cursor)
        if not (notice is None or isinstance(notice, Notice)):
            break
        if notice is not None and notice != said:
            spoke = monotonic()
            yield notice
        elif monotonic() - spoke >= KEEPALIVE_S:
            spoke = monotonic()
            yield SILENT
        said = notice
    async with aclosing(_replay(notice)) as entries:
        async for entry in entries:
            yield entry


async def _replay(entries: Iterator[Entry]) -> AsyncGenerator[Entry]:
    """A page at a time, parsed in a thread: a long log would hold up everybody else, and a reader
    who is slow with it would hold it all in memory."""
    while page := await asyncio.to_thread(list, islice(entries, PAGE)):
        for entry in page:
            yield entry
        if len(page) < PAGE:
            return


async def _next(tail: Tail, cursor: int) -> list[Entry]:
    """From the buffer, or from the log for a reader that is behind it."""
    batch = tail.since(cursor)
    if batch is not None:
        return batch[:PAGE]
    try:
        return await links.unhurt(links.alog().aread(tail.job_id, cursor, PAGE))
    except (RedisError, OSError):
        return []


async def _look(job: Job, cursor: int) -> Notice | Iterator[Entry] | None:
    """Why nothing comes: a notice, the rest of a recorded log, or no reason (``None``)."""
    try:
        state = await links.unhurt(links.aqueue().astate(job.pk.hex))
        if state is not None and state.state != "ended":
            return await _notice(job, state)
        if await links.unhurt(links.alog().aread(job.pk.hex, cursor, 1)):
            return None  # it is on its way
    except (RedisError, OSError):
        return None
    rest = await _recorded(job.pk, cursor)
    if rest is not None:
        return rest
    if state is None:  # Redis lost it; the keeper queues it again from its row
        return Notice("resuming") if cursor else None
    return iter(()) if state.last_seq <= cursor else None


async def _notice(job: Job, state: JobState) -> Notice | None:
    keys, client = Keys(), links.aclient()
    pipe = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.loading(job.model_id))
    pipe.zscore(keys.workers, state.worker)
    answers: list[Any] = await links.unhurt(pipe.execute())
    (seconds, micros), loading, lease = answers
    fraction = Loading.read(loading).fraction if loading else None
    if state.state == "running":
        alive = lease is not None and lease > seconds * 1000 + micros // 1000
        return None if alive else Notice("resuming", fraction=fraction)
    if state.last_seq:
        return Notice("resuming", fraction=fraction)
    if fraction is not None:
        return Notice("loading", fraction=fraction)
    position = await links.unhurt(links.aqueue().aposition(job.pk.hex))
    return None if position is None else Notice("queued", position=position)


@in_thread
def _recorded(pk: uuid.UUID, after: int) -> Iterator[Entry] | None:
    """The rest of a recorded log; ``None`` while the job is open. A deleted job has none."""
    row = Job.objects.filter(pk=pk).values_list("state", "dropped_at").first()
    if row is None:
        return iter(())
    state, dropped_at = row
    if dropped_at is not None:
        return iter((retention.gone(after, dropped_at),))
    return None if state == Job.State.OPEN else _unpacked(_log_of(pk), after)


class _Log:
    """A recorded log as it is kept: one for all who read it, however many and slow they are."""

    __slots__ = ("__weakref__", "blob")

    def __init__(self, blob: bytes | memoryview | None) -> None:
        self.blob = blob


_logs: WeakValueDictionary[uuid.UUID, _Log] = WeakValueDictionary()


def _log_of(pk: uuid.UUID) -> _Log:
    found = _logs.get(pk)
    if found is None:
        blob = Job.objects.filter(pk=pk).values_list("log", flat=True).first()
        found = _logs[pk] = _Log(blob)
    return found


def _unpacked(log: _Log, after: int) -> Iterator[Entry]:
    """Holds the log while it is read, so that others find it."""
    yield from archive.unpack(log.blob, after)
