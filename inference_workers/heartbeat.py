"""The lease's thread: says that the worker lives, hears its orders, and sets right what disagrees.

It renews outside the engine's thread, so that a load, a compile or a long step does not lapse the
lease. An engine that has jobs and has not moved for ``stall_seconds`` is taken for dead: the lease
is left to lapse, and others go on with its jobs.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis
import structlog

from inference_workers.engine.protocol import EngineStats
from inference_workers.loop import EngineLoop
from inference_workers.queue import LEASE_SECONDS, Leases, Orders, WorkerInfo
from inference_workers.sink import RedisSink

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Progress:
    """How far the model is loaded, told by the thread that loads it."""

    fraction: float = 0.0
    message: str = ""


class Heartbeat:
    """Registers ``worker`` and renews its lease, six times while it lasts.

    ``on_drain`` is called once when an operator asks for it, ``on_stall`` when the engine has not
    moved for twice ``stall_seconds``.
    """

    def __init__(
        self,
        leases: Leases,
        sink: RedisSink,
        *,
        worker: str,
        model: str,
        slots: int,
        lease_seconds: float = LEASE_SECONDS,
        stall_seconds: float = 30.0,
        on_drain: Callable[[], None] = lambda: None,
        on_stall: Callable[[], None] = lambda: None,
    ) -> None:
        self._leases = leases
        self._sink = sink
        self._worker, self._model, self._slots = worker, model, slots
        self._interval = lease_seconds / 6
        self._stall = stall_seconds
        self._on_drain, self._on_stall = on_drain, on_stall
        self.loading = Progress()
        self.device = "cpu"
        self.state: Literal["loading", "ready", "draining"] = "loading"
        self.loop: EngineLoop | None = None
        self.info = WorkerInfo(name=worker, model=model)
        self._started_at = time.time()
        self._seen = (-1, time.monotonic())
        self._rate = (0, time.monotonic())
        self._server = ""
        self._stray: frozenset[str] = frozenset()
        self._failing = self._loaded = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(6)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.beat()
                if self._failing:
                    log.info("lease_renewed_again", worker=self._worker)
                self._failing = False
            except redis.exceptions.RedisError as error:
                if not self._failing:
                    log.warning("lease_not_renewed", worker=self._worker, error=str(error))
                self._failing = True
            except Exception:
                log.exception("heartbeat_failed")
            self._stop.wait(self._interval)

    def beat(self) -> None:
        """One renewal and what follows from its answer; then a look at others' leases."""
        known = self._known()
        self.info = self._describe()
        if self._stalled():
            return
        if self.state == "loading":
            self._leases.set_loading(self._model, self.loading.fraction, self.loading.message)
        elif not self._loaded:
            self._leases.end_loading(self._model)
            self._loaded = True
        orders = self._leases.renew(self._worker, self.info)
        if not orders.registered:
            self._begin_again()
            return
        if self._server and orders.server != self._server:
            log.warning("redis_restarted", worker=self._worker)
            self._sink.verify()
        self._server = orders.server
        self._reconcile(known, orders)
        if orders.drain and self.state != "draining":
            self._on_drain()
        self._leases.reap()

    def _known(self) -> frozenset[str]:
        return (self.loop.jobs() if self.loop else frozenset()) | self._sink.holds()

    def _begin_again(self) -> None:
        """No lease: at the start, after it lapsed, and when Redis lost its data. Whatever runs here
        was given to others or is not known any more."""
        if self.loop and not self.loop.idle:
            log.warning("lease_lost", worker=self._worker, jobs=sorted(self.loop.jobs()))
            self.loop.drop(self.loop.jobs())
        self._leases.register(self._worker, model=self._model, slots=self._slots, info=self.info)
        self._sink.verify()

    def _reconcile(self, known: frozenset[str], orders: Orders) -> None:
        """Two ways to disagree. Redis says that we hold a job of which we know nothing, twice
        running: the answer to a claim was lost, so it goes back. We run one that Redis has given
        away: its next append would be refused, so it stops now."""
        stray = orders.jobs - known - self._known()
        if again := stray & self._stray:
            log.warning("jobs_given_back", jobs=sorted(again))
            self._leases.release(self._worker, crashed=False, jobs=sorted(again))
        self._stray = stray
        if self.loop and (gone := (known & self.loop.jobs()) - orders.jobs):
            log.warning("jobs_gone", jobs=sorted(gone))
            self.loop.drop(gone)

    def _stalled(self) -> bool:
        if self.loop is None:
            return False
        now = time.monotonic()
        if self.loop.idle or self.loop.progress != self._seen[0]:
            self._seen = (self.loop.progress, now)
            return False
        still = now - self._seen[1]
        if still < self._stall:
            return False
        log.error("engine_stalled", worker=self._worker, seconds=round(still))
        if still > 2 * self._stall:
            self._on_stall()
        return True

    def _describe(self) -> WorkerInfo:
        stats = self.loop.stats if self.loop else EngineStats(slots=self._slots)
        now = time.monotonic()
        made, since = self._rate
        rate = (stats.generated_tokens - made) / max(1e-3, now - since)
        self._rate = (stats.generated_tokens, now)
        return WorkerInfo(
            name=self._worker,
            model=self._model,
            state=self.state,
            progress=1.0 if self.loop else self.loading.fraction,
            message="" if self.loop else self.loading.message,
            running=stats.running,
            waiting=stats.waiting,
            slots=stats.slots,
            blocks_used=stats.blocks_used,
            blocks_total=stats.blocks_total,
            prefix_hits=stats.prefix_hits,
            prefix_lookups=stats.prefix_lookups,
            generated_tokens=stats.generated_tokens,
            prompt_tokens=stats.prompt_tokens,
            steps=stats.steps,
            tokens_per_second=round(max(0.0, rate), 1),
            memory_bytes=resident_bytes(),
            host=socket.gethostname(),
            pid=os.getpid(),
            device=self.device,
            started_at=self._started_at,
        )


def resident_bytes() -> int:
    """This process' resident memory; 0 where the system doesn't say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
