"""Where a worker's events go: into Redis, or into memory.

The engine's thread hands over each step's events and goes on; ``RedisSink`` appends them from a
thread of its own, one round trip for the whole batch. While Redis is slow, events of several steps
go in one round trip, each still its own entry; when too many wait, ``full`` asks the engine to
rest.

A job's events are kept until its end is safely in Redis: that is some seconds after it was logged,
since a Redis that restarts may lose its last second. ``verify`` then asks for every kept job what
the log has, and sends again what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import redis
import structlog

from inference_workers.contract import TERMINAL_TYPES, Entry
from inference_workers.queue.log import AnyEvent, Append, AppendResult, JobLog, encode

log = structlog.get_logger(__name__)

KEEP_SECONDS = 10.0
"""How long events are kept after their job's end was logged: AOF reaches the disk each second."""
MAX_PENDING = 8192
MAX_BATCH = 2048
CANCEL_POLL_SECONDS = 0.1
"""How often a worker looks for cancelled jobs that make no entries, in a long prefill say."""


@dataclass(slots=True)
class Reports:
    """What came back. ``cancelled``: stop these. ``dropped``: they are not this worker's any more.
    ``lost``: the log lacks entries that this worker never had, so these must start over.
    ``proved``: suspects that made progress, so the worker may claim again."""

    cancelled: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    proved: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.cancelled or self.dropped or self.lost or self.proved)


class Sink(Protocol):
    """Takes numbered events of claimed jobs."""

    def open(self, job_id: str, epoch: int, last_seq: int) -> None:
        """Events of the job follow, the first of them number ``last_seq + 1``."""
        ...

    def emit(self, events: Sequence[tuple[str, AnyEvent]]) -> None:
        """Take one step's events. Events of jobs that aren't open are dropped."""
        ...

    def drop(self, job_id: str) -> None:
        """Forget the job and what wasn't sent of it."""
        ...

    def take_reports(self) -> Reports: ...

    @property
    def full(self) -> bool:
        """Whether the engine should rest."""
        ...


@dataclass(slots=True)
class _Stream:
    """A job's events of one epoch. ``kept[0]`` is number ``base``; ``sent`` is the last number that
    Redis has confirmed."""

    epoch: int
    base: int
    sent: int
    kept: list[AnyEvent | tuple[str, str, int]] = field(default_factory=list)
    closed: bool = False
    done_at: float | None = None

    @property
    def last(self) -> int:
        return self.base + len(self.kept) - 1

    def encoded(self, limit: int) -> list[tuple[str, str, int]]:
        """The events that follow ``sent``, at most ``limit``, each encoded once."""
        start = self.sent + 1 - self.base
        for index in range(start, min(len(self.kept), start + limit)):
            event = self.kept[index]
            if not isinstance(event, tuple):
                self.kept[index] = encode(event)
        return self.kept[start : start + limit]  # type: ignore[return-value]


class RedisSink:
    """``log`` needs a client that fails fast (``retries=0``): the sink does its own retrying.

    ``on_report`` is called from the sink's thread when there is something to take.
    """

    def __init__(
        self, log: JobLog, worker: str, *, on_report: Callable[[], None] = lambda: None
    ) -> None:
        self._log = log
        self._worker = worker
        self.on_report = on_report
        self._lock = threading.Condition()
        self._streams: dict[str, _Stream] = {}
        self._dirty: set[str] = set()
        self._probe: set[str] = set()
        self._pending = 0
        self._reports = Reports()
        self._stopping = False
        self._next_poll = 0.0
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)

    def start(self) -> RedisSink:
        self._thread.start()
        return self

    def open(self, job_id: str, epoch: int, last_seq: int) -> None:
        with self._lock:
            self._forget(job_id)
            self._streams[job_id] = _Stream(epoch=epoch, base=last_seq + 1, sent=last_seq)

    def emit(self, events: Sequence[tuple[str, AnyEvent]]) -> None:
        with self._lock:
            for job_id, event in events:
                stream = self._streams.get(job_id)
                if stream is None or stream.closed:
                    continue
                stream.kept.append(event)
                stream.closed = event.type in TERMINAL_TYPES
                self._dirty.add(job_id)
                self._pending += 1
            self._lock.notify_all()

    def drop(self, job_id: str) -> None:
        with self._lock:
            self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        stream = self._streams.pop(job_id, None)
        if stream is not None:
            self._pending -= stream.last - stream.sent
        self._dirty.discard(job_id)
        self._probe.discard(job_id)

    def take_reports(self) -> Reports:
        if not self._reports:
            return Reports()
        with self._lock:
            reports, self._reports = self._reports, Reports()
            return reports

    @property
    def full(self) -> bool:
        return self._pending >= MAX_PENDING

    @property
    def pending(self) -> int:
        """Entries that Redis has not confirmed."""
        return self._pending

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def holds(self) -> frozenset[str]:
        """Jobs whose end is not yet confirmed."""
        with self._lock:
            return frozenset(i for i, stream in self._streams.items() if stream.done_at is None)

    def verify(self) -> None:
        """Redis may have lost something: ask what each kept job's log has."""
        with self._lock:
            self._probe.update(self._streams)
            self._lock.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is confirmed; ``False`` when it isn't in time."""
        end = time.monotonic() + timeout
        with self._lock:
            while self._pending > 0 and time.monotonic() < end and self._thread.is_alive():
                self._lock.wait(0.05)
            return self._pending <= 0

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        self._thread.join(6)

    def _run(self) -> None:
        delay, failing = 0.05, False
        while True:
            with self._lock:
                if not (self._dirty or self._probe or self._stopping):
                    self._lock.wait(CANCEL_POLL_SECONDS)
                if self._stopping:
                    return
                self._expire()
                batch = self._batch()
            try:
                results = self._log.append(batch, worker=self._worker)
                cancelled = self._poll_cancels()
            except redis.exceptions.RedisError as error:
                if not failing:
                    log.warning("redis_unreachable", error=str(error), pending=self._pending)
                failing = True
                time.sleep(delay)
                delay = min(1.0, delay * 2)
                continue
            if failing:
                log.info("redis_back", pending=self._pending)
            delay, failing = 0.05, False
            self._settle(batch, results, cancelled)

    def _batch(self) -> list[Append]:
        """What to send now. A probe sends nothing: its answer tells what the log has."""
        batch, room = [], MAX_BATCH
        for job_id in [*self._dirty, *(self._probe - self._dirty)]:
            stream = self._streams[job_id]
            events = stream.encoded(room)
            room -= len(events)
            batch.append(Append(job_id, stream.epoch, stream.sent + 1, encoded=events))
            if room <= 0:
                break
        return batch

    def _poll_cancels(self) -> Iterable[str]:
        now = time.monotonic()
        if now < self._next_poll or not self._streams:
            return ()
        self._next_poll = now + CANCEL_POLL_SECONDS
        return self._log.cancels(self._worker)

    def _settle(
        self, batch: Sequence[Append], results: Sequence[AppendResult], cancelled: Iterable[str]
    ) -> None:
        with self._lock:
            self._reports.cancelled.update(i for i in cancelled if i in self._streams)
            for item, result in zip(batch, results, strict=True):
                stream = self._streams.get(item.job_id)
                if stream is not None and stream.epoch == item.epoch:
                    self._settle_one(item, stream, result)
            report = bool(self._reports)
            self._lock.notify_all()
        if report:
            self.on_report()

    def _settle_one(self, item: Append, stream: _Stream, result: AppendResult) -> None:
        job_id = item.job_id
        self._probe.discard(job_id)
        if result.cancelled:
            self._reports.cancelled.add(job_id)
        if result.proved:
            self._reports.proved.add(job_id)
        if result.ok:
            # The log may be ahead: an earlier answer was lost on its way.
            sent = min(max(result.last_seq, stream.sent), stream.last)
            self._pending -= sent - stream.sent
            stream.sent = sent
            if sent == stream.last:
                self._dirty.discard(job_id)
                if stream.closed and stream.done_at is None:
                    stream.done_at = time.monotonic()
            return
        if result.reason == "gap":
            if result.last_seq >= stream.base - 1:
                self._pending += stream.sent - result.last_seq
                stream.sent = result.last_seq
                stream.done_at = None
                self._dirty.add(job_id)
                return
            self._reports.lost.add(job_id)
        elif stream.done_at is None:
            self._reports.dropped.add(job_id)
            log.info("job_gone", job=job_id, epoch=stream.epoch, reason=result.reason)
        self._forget(job_id)

    def _expire(self) -> None:
        limit = time.monotonic() - KEEP_SECONDS
        old = [i for i, s in self._streams.items() if s.done_at is not None and s.done_at < limit]
        for job_id in old:
            self._forget(job_id)


class MemorySink:
    """Keeps entries in this process: for the SDK's local engine and for tests."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._entries: dict[str, list[Entry]] = {}
        self._open: dict[str, tuple[int, int]] = {}
        self._reports = Reports()

    def open(self, job_id: str, epoch: int, last_seq: int) -> None:
        with self._lock:
            self._entries.setdefault(job_id, [])
            self._open[job_id] = (epoch, last_seq)

    def emit(self, events: Sequence[tuple[str, AnyEvent]]) -> None:
        with self._lock:
            for job_id, event in events:
                if job_id not in self._open:
                    continue
                epoch, seq = self._open[job_id]
                entry = Entry(seq=seq + 1, epoch=epoch, at=time.time(), event=event)
                self._entries[job_id].append(entry)
                self._open[job_id] = (epoch, seq + 1)
                if entry.terminal:
                    del self._open[job_id]
            self._lock.notify_all()

    def drop(self, job_id: str) -> None:
        with self._lock:
            self._open.pop(job_id, None)
            self._entries.pop(job_id, None)

    def cancel(self, job_id: str) -> None:
        """Ask for the job's end, as a user's stop does."""
        with self._lock:
            self._reports.cancelled.add(job_id)

    def take_reports(self) -> Reports:
        with self._lock:
            reports, self._reports = self._reports, Reports()
            return reports

    @property
    def full(self) -> bool:
        return False

    def read(self, job_id: str, after: int = 0, timeout: float | None = 0) -> list[Entry]:
        """Entries above ``after``; waits for the first up to ``timeout`` seconds (``None``: for
        ever)."""

        def news() -> list[Entry]:
            return [entry for entry in self._entries.get(job_id, ()) if entry.seq > after]

        with self._lock:
            self._lock.wait_for(lambda: bool(news()), timeout)
            return news()
