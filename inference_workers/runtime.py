"""One engine per process: load, claim, run, drain, shut down.

    main thread   starts the others and waits for a reason to end
    engine        EngineLoop: the only one that touches the engine
    sink          RedisSink: appends what the engine made
    heartbeat     Heartbeat: renews the lease, hears orders
    claimer       claims when jobs come or a slot becomes free, and every 250 ms
    lanes         claims when jobs come while the slots are full
    wake-ups      Celery's worker: claims when a message comes (``listen``)

The process ends with 0 when it was told to, with ``EXIT_REFUSED`` when a setting or the model is
wrong (starting it again won't help), and with ``EXIT_BROKEN`` when its engine broke.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import redis
import structlog

from inference_workers.config import WorkerSettings
from inference_workers.contract import Made
from inference_workers.errors import ModelError, WorkerError
from inference_workers.heartbeat import Heartbeat
from inference_workers.loading import DEFAULT_SLOTS, Loaded, load_engine, settle
from inference_workers.loop import Admission, EngineLoop
from inference_workers.metrics import serve_metrics
from inference_workers.models.manifest import Manifest
from inference_workers.queue import FairQueue, JobLog, Leases, connect
from inference_workers.sink import RedisSink

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.25
LANE_SECONDS = 1.0
FLUSH_SECONDS = 10.0
STEP_SECONDS = 12.0
"""How long a drain waits for the step under way and for Redis: together below 30 s."""
EXIT_REFUSED, EXIT_BROKEN = 2, 70


class Listener(Protocol):
    """Hears wake-ups from outside."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Runtime:
    """Everything that one worker process runs. ``run`` returns the process' exit code.

    ``listen`` makes the listener that calls what it is given at each wake-up.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        manifest: Manifest,
        listen: Callable[[Callable[[], int]], Listener],
    ) -> None:
        self._settings, self._manifest, self._listen = settings, manifest, listen
        client = connect(settings.redis_url)
        self._queue, self._log = FairQueue(client), JobLog(client)
        self._leases = Leases(client, lease_seconds=settings.lease_seconds)
        self._sink = RedisSink(
            JobLog(connect(settings.redis_url, retries=0)), settings.name, on_report=self._wake
        )
        self._heartbeat = Heartbeat(
            self._leases,
            self._sink,
            worker=settings.name,
            model=settings.model,
            slots=settings.slots or DEFAULT_SLOTS,
            lease_seconds=settings.lease_seconds,
            stall_seconds=settings.stall_seconds,
            on_drain=lambda: self.end("operator"),
            on_stall=lambda: os._exit(EXIT_BROKEN),
        )
        self._loop: EngineLoop | None = None
        self._claiming = threading.Lock()
        self._look = threading.Event()
        self._ending = threading.Event()
        self._broken = False
        self._testing = False
        self._reason = ""

    def run(self) -> int:
        """Serve until told to end. Call it from the main thread."""
        self._sink.start()
        self._heartbeat.start()
        if self._settings.metrics_port:
            serve_metrics(
                self._settings.metrics_port,
                lambda: self._heartbeat.info,
                lambda: self._sink.pending,
            )
        failures: list[WorkerError] = []
        threading.Thread(target=self._load, args=(failures,), name="load", daemon=True).start()
        self._ending.wait()
        if failures:
            log.error("model_not_loaded", code=failures[0].code, error=failures[0].message)
        self._drain()
        if self._broken:
            return EXIT_BROKEN
        return EXIT_REFUSED if failures else 0

    def end(self, reason: str) -> None:
        """Begin to drain; safe from any thread and from a signal handler."""
        self._reason = self._reason or reason
        self._ending.set()
        self._look.set()

    def claim_all(self) -> int:
        """Claim until nothing is claimable or the engine is full; answers how many were claimed."""
        loop, claimed = self._loop, 0
        if loop is None:
            return 0
        with self._claiming:
            while not self._ending.is_set() and self._claim_one(loop):
                claimed += 1
        return claimed

    def _claim_one(self, loop: EngineLoop) -> bool:
        """Whether a job was claimed: into a slot, or, when all are taken, into a lane."""
        lane = not loop.reserve()
        if lane and not loop.reserve(lane=True):
            return False
        try:
            admission = self._claim(lane)
        except BaseException:
            loop.unreserve()
            raise
        if admission is None:
            loop.unreserve()
            return False
        loop.admit(admission)
        return True

    def _claim(self, lane: bool) -> Admission | None:
        claim = self._queue.claim(self._settings.model, self._settings.name, lane=lane)
        if claim is None:
            return None
        self._testing = claim.suspect
        if claim.last_seq == 0:
            return Admission(claim)
        entries = self._log.read(claim.job.id, count=claim.last_seq)
        return Admission(claim, [entry.event for entry in entries if isinstance(entry.event, Made)])

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.wake()

    def _load(self, failures: list[WorkerError]) -> None:
        progress = self._heartbeat.loading

        def tell(fraction: float, message: str) -> None:
            progress.fraction, progress.message = fraction, message

        try:
            loaded = load_engine(self._manifest, self._settings, tell)
        except WorkerError as error:
            failures.append(error)
            self.end("model not loaded")
        except BaseException as error:
            log.exception("loading_failed")
            name = self._settings.model
            failures.append(ModelError(f"{name} can't be loaded ({error}). Prepare it again."))
            self.end("model not loaded")
        else:
            settle()
            self._serve(loaded)

    def _serve(self, loaded: Loaded) -> None:
        loop = EngineLoop(
            loaded.engine,
            self._sink,
            worker=self._settings.name,
            digest=self._manifest.digest,
            lanes=loaded.lanes,
            on_room=self._on_room,
            on_give_back=self._give_back,
            on_death=self._die,
        )
        loop.start()
        self._loop = self._heartbeat.loop = loop
        self._heartbeat.device = loaded.device
        self._heartbeat.state = "ready"
        log.info("ready", device=loaded.device, slots=loop.stats.slots)
        threading.Thread(target=self._claimer, name="claimer", daemon=True).start()
        if loaded.lanes:
            threading.Thread(
                target=self._fill_lanes, args=(loop,), name="lanes", daemon=True
            ).start()
        listener = self._listen(self.claim_all)
        listener.start()
        self._ending.wait()
        listener.stop()

    def _claimer(self) -> None:
        while not self._ending.is_set():
            try:
                self.claim_all()
            except redis.exceptions.RedisError as error:
                log.debug("claim_failed", error=str(error))
            except Exception:
                log.exception("claim_failed")
            if not self._sink.alive:
                self._die(RuntimeError("the sink's thread ended"))
            self._rest()

    def _fill_lanes(self, loop: EngineLoop) -> None:
        """While there are slots the claimer hears of new jobs; while there are none, this does."""
        while not self._ending.is_set():
            try:
                came = self._queue.wait_jobs(self._settings.model, LANE_SECONDS, full=True)
                if came and not loop.room:
                    self.claim_all()
            except redis.exceptions.RedisError as error:
                log.debug("claim_failed", error=str(error))
                self._ending.wait(LOOK_SECONDS)

    def _rest(self) -> None:
        """Until there is room, a suspect has proved itself, or jobs came; a look's time at most."""
        if self._loop is not None and self._loop.room and not self._testing:
            try:
                self._queue.wait_jobs(self._settings.model, LOOK_SECONDS)
                return
            except redis.exceptions.RedisError as error:
                log.debug("wait_failed", error=str(error))
        self._look.wait(LOOK_SECONDS)
        self._look.clear()

    def _on_room(self) -> None:
        self._testing = False
        self._look.set()

    def _give_back(self, jobs: Sequence[str], crashed: bool) -> None:
        try:
            self._leases.release(self._settings.name, crashed=crashed, jobs=jobs)
        except redis.exceptions.RedisError as error:
            # The heartbeat finds jobs that Redis thinks are here and gives them back.
            log.warning("jobs_not_given_back", jobs=list(jobs), error=str(error))

    def _die(self, error: BaseException) -> None:
        log.critical("engine_broken", error=repr(error))
        self._broken = True
        self.end("engine broken")

    def _drain(self) -> None:
        """Claim nothing more, finish the step under way, log what it made, hand the rest over."""
        log.info("draining", reason=self._reason)
        self._heartbeat.state = "draining"
        worker = self._settings.name
        with self._claiming:
            stopped = self._loop is None or self._loop.stop(STEP_SECONDS)
        flushed = self._sink.flush(FLUSH_SECONDS)
        self._sink.stop()
        self._heartbeat.stop()
        try:
            handed = self._leases.release(worker, crashed=self._broken)
            self._leases.drop(worker)
            log.info("drained", handed_over=handed, stopped=stopped, flushed=flushed)
        except redis.exceptions.RedisError as error:
            log.warning("lease_left_to_lapse", error=str(error))
