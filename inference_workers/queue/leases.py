"""Which workers live, and what becomes of the jobs of those that don't.

A lease belongs to a worker process. It lasts ``LEASE_SECONDS`` from each renewal, on Redis' clock.
When it lapses, anybody may ``reap``: the worker's jobs go back to the front of their teams' queues
with the next epoch, and the worker, should it still live, finds itself unregistered and fenced.

A worker's name must not be shared by two live processes. Registering a name again hands back the
jobs of the process that had it before, as crashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

from inference_workers.contract import Message
from inference_workers.queue.keys import Keys
from inference_workers.queue.scripts import Argument, run, texts

LEASE_SECONDS = 6.0


class WorkerInfo(Message):
    """What a worker says about itself with each renewal. Counters grow from its start.

    ``progress`` is how much of the model is loaded, from 0 to 1; ``memory_bytes`` the process'
    resident memory; ``paused`` is set by operators and filled in by the reader.
    """

    name: str
    model: str
    state: Literal["loading", "ready", "draining"] = "loading"
    progress: float = 0.0
    message: str = ""
    running: int = 0
    waiting: int = 0
    slots: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    prefix_hits: int = 0
    prefix_lookups: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    tokens_per_second: float = 0.0
    memory_bytes: int = 0
    host: str = ""
    pid: int = 0
    device: str = "cpu"
    started_at: float = 0.0
    paused: bool = False


class Loading(Message):
    """How far a model's worker has come before it can take jobs."""

    fraction: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told when it renews.

    ``registered`` false: its lease lapsed and its jobs were given away. ``server`` names the run of
    the Redis server, so a change means a restart. ``jobs`` are those that Redis thinks it holds.
    """

    registered: bool
    drain: bool
    paused: bool
    server: str
    jobs: frozenset[str]


class Leases:
    """Workers' leases. ``lease_seconds`` must be the same everywhere."""

    def __init__(
        self, redis: redis.Redis, keys: Keys | None = None, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._redis = redis
        self._ms = int(lease_seconds * 1000)
        self.keys = keys or Keys()

    def register(
        self, worker: str, *, model: str, slots: int, info: WorkerInfo | None = None
    ) -> list[str]:
        """Begin a lease. Answers the jobs of a predecessor of the same name, which go back."""
        info = info or WorkerInfo(name=worker, model=model, slots=slots)
        what = (self.keys.prefix, worker, self._ms, model, slots, info.write())
        return texts(run(self._redis, "register", *what))

    def renew(self, worker: str, info: WorkerInfo) -> Orders:
        """Prolong the lease and say how the worker is."""
        answer = run(self._redis, "renew", self.keys.prefix, worker, self._ms, info.write())
        registered, drain, paused, server, *jobs = answer
        return Orders(
            bool(registered), drain == "1", paused == "1", str(server), frozenset(texts(jobs))
        )

    def drop(self, worker: str) -> None:
        """End the lease. Jobs that it still holds go back, not as crashed."""
        run(self._redis, "release", self.keys.prefix, worker, 0, 1)

    def workers(self) -> list[WorkerInfo]:
        """Workers with a live lease, by name."""
        seconds, micros = self._redis.time()
        now = seconds * 1000 + micros // 1000
        names = cast("list[str]", self._redis.zrangebyscore(self.keys.workers, f"({now}", "+inf"))
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hmget(self.keys.worker(name), ["info", "drain", "paused"])
        found: list[Any] = pipe.execute() if names else []
        return sorted(
            (_info(*values) for values in found if values[0]), key=lambda worker: worker.name
        )

    def release(
        self, worker: str, *, crashed: bool, jobs: Sequence[str] | None = None
    ) -> list[str]:
        """Hand back a worker's jobs (or only ``jobs`` of them), with the next epoch, to the front
        of their teams' queues. Answers those handed back or, if cancelled or lost, ended.

        ``crashed``: the worker is gone and forgotten, and its jobs are suspects.
        """
        if jobs is not None and not jobs:
            return []
        forget = int(crashed and jobs is None)
        what: list[Argument] = [self.keys.prefix, worker, int(crashed), forget, *(jobs or ())]
        return texts(run(self._redis, "release", *what))

    def reap(self) -> list[str]:
        """Release the jobs of every worker whose lease has lapsed, and end queued jobs whose
        deadline has passed. Idempotent; anybody may call it, about once a second."""
        return texts(run(self._redis, "reap", self.keys.prefix, self._ms))

    def request_drain(self, worker: str) -> None:
        """Claim nothing more, hand over what runs, and leave."""
        self._flag(worker, "drain", True)

    def set_paused(self, worker: str, paused: bool) -> None:
        """Claim nothing more for now; what runs goes on."""
        self._flag(worker, "paused", paused)

    def _flag(self, worker: str, field: str, value: bool) -> None:
        run(self._redis, "flag", self.keys.prefix, worker, field, int(value))

    def set_loading(self, model: str, fraction: float, message: str = "") -> None:
        """Tell the model's readers how far it is. Forgotten when not repeated within a lease."""
        value = Loading(fraction=fraction, message=message).write()
        self._redis.set(self.keys.loading(model), value, px=self._ms)

    def end_loading(self, model: str) -> None:
        self._redis.delete(self.keys.loading(model))

    def loading(self, model: str) -> Loading | None:
        """``None``: nobody is loading it."""
        value = cast("str | None", self._redis.get(self.keys.loading(model)))
        return None if value is None else Loading.read(value)


def _info(info: str, drain: str, paused: str) -> WorkerInfo:
    worker = WorkerInfo.read(info)
    state = "draining" if drain == "1" else worker.state
    return worker.model_copy(update={"state": state, "paused": paused == "1"})
