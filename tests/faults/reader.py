"""Follows many logs as the portal does: by number, across restarts of Redis."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import redis

from inference_workers.contract import Delta, Entry
from inference_workers.queue import Keys, connect
from inference_workers.queue.log import decode


@dataclass(slots=True)
class Followed:
    """A job as a reader saw it. ``times`` are when each entry came, in monotonic seconds."""

    entries: list[Entry] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return bool(self.entries) and self.entries[-1].terminal

    @property
    def tokens(self) -> int:
        return sum(len(e.event.token_ids) for e in self.entries if isinstance(e.event, Delta))

    def longest_gap(self) -> float:
        return max(
            (after - before for before, after in zip(self.times, self.times[1:], strict=False)),
            default=0.0,
        )


class Reader:
    """One thread that reads every followed log after the last number it has seen."""

    def __init__(self, url: str) -> None:
        self._client = connect(url, retries=0)
        self._keys = Keys()
        self.jobs: dict[str, Followed] = {}
        self.errors: list[str] = []
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def follow(self, job_id: str) -> None:
        with self._lock:
            self.jobs[job_id] = Followed()
            self._open[job_id] = 0

    def open(self) -> list[str]:
        """Jobs without an end so far."""
        with self._lock:
            return list(self._open)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(6)

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                cursors = {self._keys.log(i): f"{seq}-0" for i, seq in self._open.items()}
            if not cursors:
                time.sleep(0.005)
                continue
            try:
                streams: Any = cursors
                found: Any = self._client.xread(streams, count=256, block=50)
            except redis.exceptions.RedisError:
                time.sleep(0.05)
                continue
            now = time.monotonic()
            for name, entries in found or ():
                self._take(name.rpartition(":")[2], [decode(*entry) for entry in entries], now)

    def _take(self, job_id: str, entries: list[Entry], now: float) -> None:
        with self._lock:
            job = self.jobs[job_id]
            for entry in entries:
                if entry.seq != len(job.entries) + 1:
                    self.errors.append(f"{job_id}: {entry.seq} follows {len(job.entries)}")
                if job.ended:
                    self.errors.append(f"{job_id}: {entry.seq} follows the end")
                job.entries.append(entry)
                job.times.append(now)
            self._open[job_id] = job.entries[-1].seq
            if job.ended:
                del self._open[job_id]
