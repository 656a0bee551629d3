"""What operators see: queues, workers and the last quarter of an hour, read once for all walls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Generic, TypeVar

import redis
from django.db.models import Count, Q
from django.utils import timezone

from inference_workers.queue import FairQueue, WorkerInfo
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import encoders_among
from portal.jobs import links
from portal.jobs.models import Job

LIVE_SECONDS = 0.9
"""Below the second at which a wall asks, so that each wall's every question gets a new answer."""
ROWS_SECONDS = 5.0
WINDOW = timedelta(minutes=15)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelNow:
    """One model's queue and workers. ``wait`` is how long its first job has waited, in seconds."""

    id: str
    waiting: int
    wait: float
    running: int
    slots: int
    workers: int
    paused: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs whose end was recorded in the last quarter of an hour."""

    jobs: int
    failed: int
    by_code: tuple[tuple[str, int], ...]
    """Failures by error code, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Now:
    """Everything on the wall. ``at`` is a UNIX time; while Redis is out of reach, ``reachable`` is
    false and queues and workers are those of the last look."""

    at: float
    models: tuple[ModelNow, ...]
    workers: tuple[WorkerInfo, ...]
    ended: Ended
    reachable: bool = True
    encoders: frozenset[str] = frozenset()
    """The models that generate no tokens."""

    @property
    def waiting(self) -> int:
        return sum(model.waiting for model in self.models)

    @property
    def longest_wait(self) -> float:
        return max((model.wait for model in self.models), default=0.0)

    @property
    def running(self) -> int:
        return sum(worker.running for worker in self.workers)

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers)

    @property
    def tokens_per_second(self) -> float:
        return sum(worker.tokens_per_second for worker in self.workers)


class Shared(Generic[T]):
    """A value read at most once in ``seconds``, whoever asks; askers meanwhile get the last one."""

    def __init__(self, read: Callable[[], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = threading.Lock()
        self._value: T | None = None
        self._until = 0.0

    def get(self) -> T:
        with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                self._value = self._read()
                self._until = time.monotonic() + self._seconds
            return self._value

    def clear(self) -> None:
        with self._lock:
            self._value = None


_last: list[Now] = []


def _read() -> Now:
    ended = rows.get()
    try:
        workers = tuple(links.leases().workers())
        queue = links.queue()
        ids = CatalogueModel.objects.filter(state=CatalogueModel.State.READY).order_by("id")
        models = tuple(
            _model(queue, model_id, workers) for model_id in ids.values_list("id", flat=True)
        )
    except (redis.RedisError, OSError):
        return replace(_last[0] if _last else Now(0.0, (), (), ended), reachable=False, ended=ended)
    encoders = frozenset(encoders_among([worker.model for worker in workers]))
    _last[:] = [Now(time.time(), models, workers, ended, encoders=encoders)]
    return _last[0]


def _model(queue: FairQueue, model_id: str, workers: tuple[WorkerInfo, ...]) -> ModelNow:
    own = [worker for worker in workers if worker.model == model_id]
    return ModelNow(
        id=model_id,
        waiting=queue.depth(model_id),
        wait=queue.wait(model_id),
        running=sum(worker.running for worker in own),
        slots=sum(worker.slots for worker in own),
        workers=len(own),
        paused=queue.paused(model_id),
    )


def _read_rows() -> Ended:
    recorded = Job.objects.filter(recorded_at__gte=timezone.now() - WINDOW)
    failed = Q(state=Job.State.FAILED)
    counts = recorded.aggregate(jobs=Count("id"), failed=Count("id", filter=failed))
    codes = (
        recorded.filter(failed)
        .values_list("error_code")
        .annotate(count=Count("id"))
        .order_by("-count", "error_code")
    )
    return Ended(counts["jobs"], counts["failed"], tuple(codes[:10]))


rows = Shared(_read_rows, ROWS_SECONDS)
now = Shared(_read, LIVE_SECONDS)


def worker(name: str) -> WorkerInfo | None:
    """The live worker of that name, read now."""
    return next((found for found in links.leases().workers() if found.name == name), None)
