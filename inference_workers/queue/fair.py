"""The fair queue: which job runs next on a model.

Teams take turns by tokens served, divided by weight (Virtual Token Counter, arXiv 2401.00588):
prompt tokens are charged when a job is first claimed, generated tokens as they are logged. Between
two teams that both have work waiting the difference never exceeds twice the largest prompt, or
twice what one full batch can generate; no slot idles while a job waits. A worker whose slots are
all taken may claim into one of its lanes, for a team that it runs nothing for and whose turn it is:
a team that asks now and then need not wait until one of a greedy team's long jobs ends.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

from inference_workers.contract import Job
from inference_workers.queue.clients import AsyncRedis
from inference_workers.queue.keys import Keys
from inference_workers.queue.scripts import arun, run

FORGET_SECONDS = 600
"""How long a recorded job's log stays in Redis for readers that are on it."""

CancelResult = Literal["removed", "flagged", "unknown"]


class QueueFull(Exception):
    """The model's queue has as many jobs as it may have."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job given to a worker. ``job.epoch`` is the epoch to append with, ``last_seq`` what its log
    ends with. A ``suspect`` was running when a worker died."""

    job: Job
    last_seq: int
    suspect: bool


@dataclass(frozen=True, slots=True)
class JobState:
    """What Redis knows about a job. Times are UNIX seconds on Redis' clock.

    ``epoch`` is the running one, or the next one of a queued job. ``crashes`` counts the workers
    that died with it. ``tokens`` counts generated tokens in the log.
    """

    state: Literal["queued", "running", "ended"]
    worker: str
    epoch: int
    last_seq: int
    crashes: int
    tokens: int
    suspect: bool
    cancelled: bool
    queued_at: float | None
    claimed_at: float | None
    first_token_at: float | None
    last_token_at: float | None
    ended_at: float | None


class FairQueue:
    """One queue per model, shared by all processes that use the same Redis and prefix.

    The async twins (``a…``) need ``aredis``, a client of the calling event loop.
    """

    def __init__(
        self,
        redis: redis.Redis | None,
        keys: Keys | None = None,
        *,
        aredis: AsyncRedis | None = None,
    ) -> None:
        self._redis = redis
        self._aredis = aredis
        self.keys = keys or Keys()

    @property
    def _sync(self) -> redis.Redis:
        if self._redis is None:
            raise RuntimeError("this queue was made without a sync client: call its async methods")
        return self._redis

    @property
    def _async(self) -> AsyncRedis:
        if self._aredis is None:
            raise RuntimeError("this queue was made without an async client: pass aredis")
        return self._aredis

    def enqueue(
        self, job: Job, *, weight: float = 1.0, front: bool = False, limit: int = 0
    ) -> bool:
        """Queue a job; ``False`` if it is known already, whatever its state.

        Its first epoch is ``job.epoch + 1``. After a loss of Redis' data, pass an epoch that is
        higher than any the job can have had: it tells the old run's entries from the new one's.
        ``front`` puts it before its team's other jobs.

        Raises:
            QueueFull: the model has ``limit`` queued jobs (0: no limit).
        """
        if weight <= 0:
            raise ValueError(f"weight must be above 0, not {weight}")
        deadline = "" if job.deadline is None else int(job.deadline * 1000)
        what = (job.id, job.write(), job.model, job.team, weight, len(job.input_ids), job.epoch)
        known = run(self._sync, "enqueue", self.keys.prefix, *what, deadline, int(front), limit)
        if known < 0:
            raise QueueFull(f"{job.model} has {limit} jobs waiting")
        return bool(known)

    def depth(self, model: str) -> int:
        """Queued jobs of a model."""
        return self._sync.zcard(self.keys.waiting(model))

    async def adepth(self, model: str) -> int:
        return await self._async.zcard(self.keys.waiting(model))

    def wait(self, model: str) -> float:
        """Seconds that the longest-waiting queued job has waited; 0 when none waits."""
        oldest = cast(
            "list[tuple[str, float]]",
            self._sync.zrange(self.keys.waiting(model), 0, 0, withscores=True),
        )
        if not oldest:
            return 0.0
        seconds, micros = self._sync.time()
        return max(0.0, seconds + micros / 1e6 - oldest[0][1] / 1000)

    def claim(self, model: str, worker: str, *, lane: bool = False) -> Claim | None:
        """Give the next job to ``worker``, or nothing.

        Nothing also when the worker has no live lease, drains or is paused, when the model is
        paused, and while the worker runs a suspect that has not proved itself; with ``lane`` also
        when the worker runs something for the team whose turn it is.
        """
        found = run(self._sync, "claim", self.keys.prefix, model, worker, int(lane))
        if found is None:
            return None
        _, payload, epoch, seq, suspect = found
        job = Job.read(payload).model_copy(update={"epoch": int(epoch)})
        return Claim(job=job, last_seq=int(seq), suspect=bool(suspect))

    def wait_jobs(self, model: str, timeout: float, *, full: bool = False) -> bool:
        """Wait up to ``timeout`` seconds (below 5) for jobs to come; ``True`` if some did.

        They may be gone again, and a wake-up can be lost: look from time to time in any case.
        Workers whose slots are ``full`` wait apart from those that have room.
        """
        wake = self.keys.wake_full(model) if full else self.keys.wake(model)
        return self._sync.blpop([wake], timeout=timeout) is not None

    def position(self, job_id: str) -> int | None:
        """1 for the job that is claimed next; ``None`` when it isn't queued. See position.lua."""
        return cast("int | None", run(self._sync, "position", self.keys.prefix, job_id))

    async def aposition(self, job_id: str) -> int | None:
        return cast("int | None", await arun(self._async, "position", self.keys.prefix, job_id))

    def cancel(self, job_id: str) -> CancelResult:
        """Stop a job: a queued one ends at once, a running one at its worker's next step.

        ``unknown``: there is no such job, or it has ended.
        """
        return cast(CancelResult, run(self._sync, "cancel", self.keys.prefix, job_id))

    async def acancel(self, job_id: str) -> CancelResult:
        return cast(CancelResult, await arun(self._async, "cancel", self.keys.prefix, job_id))

    def state(self, job_id: str) -> JobState | None:
        """``None``: Redis doesn't know the job (any more)."""
        return _state(cast("list[str | None]", self._sync.hmget(self.keys.job(job_id), _FIELDS)))

    async def astate(self, job_id: str) -> JobState | None:
        values: Any = self._async.hmget(self.keys.job(job_id), _FIELDS)
        return _state(cast("list[str | None]", await values))

    def forget(self, job_id: str, seconds: int = FORGET_SECONDS) -> None:
        """The job's row is settled, whatever Redis thinks: take it out of the queue and away from
        its worker, drop its payload, and let its log expire after ``seconds``."""
        run(self._sync, "forget", self.keys.prefix, job_id, seconds, 0)

    def pause(self, model: str) -> None:
        """Claim nothing from a model until ``resume``. What runs goes on."""
        self._sync.sadd(self.keys.paused, model)

    def resume(self, model: str) -> None:
        self._sync.srem(self.keys.paused, model)

    def paused(self, model: str) -> bool:
        return bool(self._sync.sismember(self.keys.paused, model))

    def set_unplaced(self, models: Collection[str], seconds: int) -> None:
        """Say for which models no worker can be started. Forgotten when not repeated in time."""
        with self._sync.pipeline() as pipe:
            pipe.delete(self.keys.unplaced)
            if models:
                pipe.sadd(self.keys.unplaced, *models)
                pipe.expire(self.keys.unplaced, seconds)
            pipe.execute()

    def outlook(self, model: str) -> tuple[int, bool]:
        """Queued jobs of a model, and whether ``set_unplaced`` names it; in one round trip."""
        with self._sync.pipeline(transaction=False) as pipe:
            pipe.zcard(self.keys.waiting(model))
            pipe.sismember(self.keys.unplaced, model)
            depth, unplaced = pipe.execute()
        return int(depth), bool(unplaced)


_TIMES = ["queued_at", "claimed_at", "first_token_at", "last_token_at", "ended_at"]
_FIELDS = [
    "state", "worker", "epoch", "seq", "crashes", "tokens", "suspect", "cancel", *_TIMES,
]  # fmt: skip


def _state(values: list[str | None]) -> JobState | None:
    if values[0] is None:
        return None
    texts = [value or "" for value in values]
    times = [float(value) / 1000 if value else None for value in texts[8:]]
    return JobState(
        state=cast(Literal["queued", "running", "ended"], texts[0]),
        worker=texts[1],
        epoch=int(texts[2]),
        last_seq=int(texts[3]),
        crashes=int(texts[4]),
        tokens=int(texts[5]),
        suspect=texts[6] == "1",
        cancelled=texts[7] == "1",
        **dict(zip(_TIMES, times, strict=True)),
    )
