"""The engine's thread: takes jobs, steps the engine, hands its events on, ends what is overdue.

Only this thread touches the engine. Others talk to it through ``reserve``, ``admit``, ``drop`` and
read the snapshots ``stats``, ``jobs`` and ``progress``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

import structlog

from inference_workers.contract import (
    TERMINAL_TYPES,
    Delta,
    Failed,
    Job,
    Made,
    Started,
    Usage,
)
from inference_workers.engine.protocol import Engine, EngineEvent, EngineStats
from inference_workers.errors import RequestError
from inference_workers.queue import Claim
from inference_workers.sink import Sink

log = structlog.get_logger(__name__)

MAX_FAULTS = 3
"""After so many failed steps in a row the engine is beyond repair, and the process ends."""


@dataclass(slots=True)
class _Live:
    """A job in the engine, and what its log holds of it."""

    job: Job
    tokens: int

    def usage(self) -> Usage:
        return Usage(prompt_tokens=len(self.job.input_ids), completion_tokens=self.tokens)


@dataclass(frozen=True, slots=True)
class Admission:
    """A claimed job with what earlier epochs made and logged."""

    claim: Claim
    logged: Sequence[Made] = ()


class EngineLoop:
    """Runs ``engine`` in a thread of its own until ``stop``. The last ``lanes`` of the jobs that it
    can run together are not slots: see ``reserve``.

    ``on_room`` is called when a slot became free or a suspect proved itself, ``on_give_back`` with
    jobs that can't go on here: ``crashed`` true when a step failed with them, so they are tried
    again one at a time. ``on_death`` is called when the loop can't go on at all. All three are
    called from its thread.
    """

    def __init__(
        self,
        engine: Engine,
        sink: Sink,
        *,
        worker: str,
        digest: str = "",
        lanes: int = 0,
        on_room: Callable[[], None] = lambda: None,
        on_give_back: Callable[[Sequence[str], bool], None] = lambda jobs, crashed: None,
        on_death: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._worker = worker
        self._digest = digest
        self._lanes = lanes
        self._on_room, self._on_give_back, self._on_death = on_room, on_give_back, on_death
        self._live: dict[str, _Live] = {}
        self._inbox: SimpleQueue[Admission | str] = SimpleQueue()
        self._admitted: set[str] = set()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._capacity, self._reserved = engine.capacity(), 0
        self._faults = 0
        self._stopping = False
        self.progress = 0
        self.stats: EngineStats = self._look_at_engine()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """End after the step under way; ``False`` when that takes longer than ``timeout``."""
        self._stopping = True
        self.wake()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def idle(self) -> bool:
        return not self._live and self._inbox.empty()

    def jobs(self) -> frozenset[str]:
        """Jobs in the engine, and those that were admitted and wait for the step under way."""
        with self._lock:
            return frozenset(self._live.copy()) | self._admitted

    def wake(self) -> None:
        self._wake.set()

    def reserve(self, *, lane: bool = False) -> bool:
        """Keep room for a job that is about to be claimed; ``admit`` or ``unreserve`` follows.

        ``lane``: beside the slots if need be, for what is claimed so (``FairQueue.claim``).
        """
        with self._lock:
            free = self._capacity - (0 if lane else self._lanes)
            if self._stopping or self._reserved >= free:
                return False
            self._reserved += 1
            return True

    @property
    def room(self) -> bool:
        """Whether a slot is free."""
        with self._lock:
            return not self._stopping and self._reserved < self._capacity - self._lanes

    def unreserve(self) -> None:
        with self._lock:
            self._reserved -= 1

    def admit(self, admission: Admission) -> None:
        with self._lock:
            self._admitted.add(admission.claim.job.id)
        self._inbox.put(admission)
        self.wake()

    def drop(self, job_ids: Iterable[str]) -> None:
        """These jobs are another's now: forget them, without a word in their logs."""
        for job_id in job_ids:
            self._inbox.put(job_id)
        self.wake()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            log.exception("engine_loop_died")
            self._on_death(error)

    def _turn(self) -> None:
        """One round: news from outside, then one step, or a rest when there is nothing to do."""
        self._wake.clear()
        self._receive()
        self._heed_reports()
        self._end_overdue()
        self._publish()
        self.progress += 1
        if self._sink.full:
            self._wake.wait(0.05)
        elif self._engine.busy:
            self._step()
        else:
            self._wake.wait(0.25)

    def _receive(self) -> None:
        while True:
            try:
                item = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(item, str):
                self._forget(item)
            else:
                self._take(item)

    def _take(self, admission: Admission) -> None:
        claim = admission.claim
        job = claim.job
        # After a loss of Redis' data a job can come again while its old run is still here.
        self._engine.remove(job.id)
        tokens = sum(len(e.token_ids) for e in admission.logged if isinstance(e, Delta))
        self._live[job.id] = live = _Live(job, tokens)
        self._sink.open(job.id, job.epoch, claim.last_seq)
        if claim.last_seq == 0:
            self._sink.emit([(job.id, Started(worker=self._worker))])
        log.info(
            "job_taken", job=job.id, epoch=job.epoch, seq=claim.last_seq, suspect=claim.suspect
        )
        try:
            self._check(job)
            self._engine.add(job, admission.logged)
        except RequestError as error:
            self._refuse(live, error.code, error.message)
        except Exception:
            log.exception("job_not_taken", job=job.id)
            self._engine.remove(job.id)
            self._refuse(live, "internal", "The worker could not start this request. Try again.")
        with self._lock:
            self._admitted.discard(job.id)
            self._reserved -= 1
            self._capacity = self._engine.capacity()

    def _check(self, job: Job) -> None:
        if self._digest and job.model_digest and job.model_digest != self._digest:
            raise RequestError(
                "The model was replaced while this request waited. Send it again.",
                code="model_changed",
            )

    def _heed_reports(self) -> None:
        reports = self._sink.take_reports()
        if not reports:
            return
        for job_id in reports.cancelled:
            if job_id in self._live:
                self._engine.cancel(job_id)
        for job_id in reports.dropped | reports.lost:
            self._forget(job_id)
        if reports.proved:
            self._on_room()
        if reports.lost:
            log.warning("log_lost", jobs=sorted(reports.lost))
            self._on_give_back(sorted(reports.lost), False)

    def _forget(self, job_id: str) -> None:
        self._engine.remove(job_id)
        self._sink.drop(job_id)
        if self._live.pop(job_id, None):
            self._on_room()

    def _end_overdue(self) -> None:
        now = time.time()
        overdue = [
            live
            for live in self._live.values()
            if live.job.deadline is not None and live.job.deadline <= now
        ]
        for live in overdue:
            self._engine.remove(live.job.id)
            self._fail(
                live,
                "deadline_exceeded",
                "The deadline passed before the answer was complete. Allow more time, or ask for "
                "fewer tokens.",
            )

    def _refuse(self, live: _Live, code: str, message: str) -> None:
        """Fail a job that didn't start here. One that never started anywhere costs nothing."""
        usage = live.usage() if live.tokens else Usage()
        self._hand_on([(live.job.id, Failed(code=code, message=message, usage=usage))])

    def _fail(self, live: _Live, code: str, message: str) -> None:
        self._hand_on([(live.job.id, Failed(code=code, message=message, usage=live.usage()))])

    def _step(self) -> None:
        try:
            events = self._engine.step()
        except Exception as error:
            self._recover(error)
            return
        self._faults = 0
        self._hand_on(events)

    def _hand_on(self, events: Sequence[tuple[str, EngineEvent]]) -> None:
        """Log a step's events. A slot that became free may be taken before the next step."""
        self._sink.emit(events)
        ended = False
        for job_id, event in events:
            live = self._live.get(job_id)
            if live is None:
                continue
            if isinstance(event, Delta):
                live.tokens += len(event.token_ids)
            elif event.type in TERMINAL_TYPES:
                ended = True
                del self._live[job_id]
                log.info("job_ended", job=job_id, end=event.type, tokens=live.tokens)
        if ended:
            self._publish()
            self._on_room()

    def _recover(self, error: Exception) -> None:
        """A step failed as a whole, so nobody knows whose fault it was: empty the engine and give
        its jobs back as suspects. Whoever fails a step alone again ends there."""
        self._faults += 1
        jobs = sorted(self._live)
        log.exception("step_failed", jobs=jobs, faults=self._faults)
        if self._faults >= MAX_FAULTS:
            raise error
        for job_id in jobs:
            self._forget(job_id)
        self._on_give_back(jobs, True)
        if self._engine.busy:
            raise error

    def _look_at_engine(self) -> EngineStats:
        stats = self._engine.stats()
        return replace(stats, slots=stats.slots - self._lanes)

    def _publish(self) -> None:
        self.stats = self._look_at_engine()
        with self._lock:
            self._capacity = self._engine.capacity()
