"""Brings the ends of jobs home, and jobs that got lost back.

``record`` moves an ended log into its row. ``Keeper`` calls it on notice and about once a second
sweeps: ended logs, lapsed leases, open rows that Redis doesn't know (a lost dispatch, lost data)
and jobs past their deadline. Every step is idempotent, so any number of keepers may run, and each
may die anywhere: what one leaves undone the next sweep does.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

import redis
import structlog
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.utils import timezone

from inference_workers.contract import (
    Cancelled,
    Delta,
    Embedded,
    Entry,
    Failed,
    Finished,
    Usage,
)
from inference_workers.queue import FairQueue, JobLog, JobState, Leases, connect
from inference_workers.queue.fair import FORGET_SECONDS
from portal.jobs import archive, dispatch
from portal.jobs.models import Job
from portal.metrics import JOBS_RECORDED, TOKENS
from portal.usage.services import settle

SWEEP_S = 1.0
GRACE = timedelta(seconds=2)
"""A young row may still be on its way to the queue."""

DEADLINE_GRACE_S = 15.0
"""How long after its deadline a running job may take to stop before its row is ended for it."""

EPOCHS_A_LIFE = 1000
"""More than a job can use up between two losses of Redis' data: crashes end it long before."""

VECTORS_SECONDS = 30
"""How long a recorded log of vectors stays in Redis: they are a thousand times as long as tokens,
and a reader who comes later gets them from the row."""

BATCH = 500
TERMINAL = (Finished, Failed, Cancelled)
logger = structlog.get_logger(__name__)


def record(job_id: str, *, log: JobLog, queue: FairQueue) -> bool:
    """End the row as its log ended; ``True`` for the one caller who did.

    One transaction: state, log, times, usage and settlement. Then Redis may forget the job, which
    is said again whenever somebody finds it still on the list.
    """
    entries = list(archive.whole(log, job_id))
    if not entries or not entries[-1].terminal:
        return False
    won = end_row(job_id, entries, state=queue.state(job_id))
    vectors = any(isinstance(entry.event, Embedded) for entry in entries)
    log.recorded(job_id, VECTORS_SECONDS if vectors else FORGET_SECONDS)
    return won


def end_row(job_id: str, entries: list[Entry], *, state: JobState | None = None) -> bool:
    """The transaction of ``record``. ``False``: the row had ended already, or is gone."""
    event = entries[-1].event
    assert isinstance(event, TERMINAL)
    fields = _outcome(event) | _usage_fields(event.usage) | _times(state)
    pk = uuid.UUID(job_id)
    with transaction.atomic():
        changed = Job.objects.filter(pk=pk, state=Job.State.OPEN).update(
            log=archive.pack(entries), recorded_at=timezone.now(), **fields
        )
        if not changed:
            return False
        settle(job_id=pk, usage=event.usage)
    _count(pk, str(fields["state"]), event.usage)
    return True


def _outcome(event: Finished | Failed | Cancelled) -> dict[str, str]:
    if isinstance(event, Finished):
        return {"state": Job.State.FINISHED, "reason": event.reason}
    if isinstance(event, Cancelled):
        return {"state": Job.State.CANCELLED, "reason": "cancelled"}
    return {
        "state": Job.State.FAILED,
        "reason": "error",
        "error_code": event.code[:40],
        "error_message": event.message,
    }


def _usage_fields(usage: Usage) -> dict[str, int]:
    return usage.model_dump()


def _times(state: JobState | None) -> dict[str, datetime | None]:
    if state is None:
        return {}
    names = ("claimed_at", "first_token_at", "last_token_at")
    return {name: _moment(getattr(state, name)) for name in names}


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _count(pk: uuid.UUID, state: str, usage: Usage) -> None:
    model = Job.objects.filter(pk=pk).values_list("model_id", flat=True).first() or ""
    JOBS_RECORDED.labels(state).inc()
    TOKENS.labels(model, "prompt").inc(usage.prompt_tokens)
    TOKENS.labels(model, "completion").inc(usage.completion_tokens)


class Keeper:
    """Runs until ``stop`` is set; survives the absence of Redis and of the database."""

    def __init__(self, client: redis.Redis | None = None) -> None:
        self._client = client or connect(settings.REDIS_URL, retries=0)
        self._log = JobLog(self._client)
        self._queue = FairQueue(self._client)
        self._leases = Leases(self._client)
        self._trouble = ""
        self._refused: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        next_sweep = 0.0
        while not stop.is_set():
            try:
                self._log.wait_ended(timeout=min(SWEEP_S, 1.0))
                self.collect()
                if time.monotonic() >= next_sweep:
                    self.sweep()
                    next_sweep = time.monotonic() + SWEEP_S
                self._calm()
            except Exception as error:  # whatever it is, jobs must go on being recorded
                self._complain(error)
                connection.close()
                stop.wait(0.5)
        connection.close()

    def _complain(self, error: Exception) -> None:
        """Once for each kind of trouble: an outage must not fill the disk."""
        kind = type(error).__name__
        if kind != self._trouble:
            known = isinstance(error, redis.RedisError | DatabaseError | OSError)
            logger.warning("keeper_waits", kind=kind, error=str(error), exc_info=not known)
        self._trouble = kind

    def _calm(self) -> None:
        if self._trouble:
            logger.info("keeper_goes_on", after=self._trouble)
        self._trouble = ""

    def collect(self) -> int:
        """Record what has ended; how many rows that ended here."""
        done = 0
        while job_ids := self._collectable():
            for job_id in job_ids:
                act = partial(record, job_id, log=self._log, queue=self._queue)
                done += self._each(job_id, act)
            if len(job_ids) < BATCH:
                break
        return done

    def _collectable(self) -> list[str]:
        now = time.monotonic()
        self._refused = {job: until for job, until in self._refused.items() if until > now}
        return [job for job in self._log.ended(BATCH) if job not in self._refused]

    def _each(self, job_id: str, act: Callable[[], bool]) -> bool:
        """One job that can't be handled must not stand in the others' way."""
        try:
            return act()
        except (redis.RedisError, DatabaseError, OSError):
            raise
        except Exception:
            logger.exception("job_not_handled", job=job_id)
            self._refused[job_id] = time.monotonic() + 60
            return False

    def sweep(self) -> None:
        """Everything that nobody gave notice of."""
        self._leases.reap()
        self.collect()
        rows = Job.objects.filter(
            state=Job.State.OPEN, queued_at__lt=timezone.now() - GRACE
        ).order_by("queued_at")
        now = time.time()
        open_rows = list(rows.values_list("pk", "deadline"))
        for start in range(0, len(open_rows), BATCH):
            batch = open_rows[start : start + BATCH]
            for (pk, deadline), found in zip(batch, self._states(batch), strict=True):
                late = deadline is not None and now > deadline
                if found in (None, "ended") or late:
                    self._each(pk.hex, partial(self._tend, pk, deadline))

    def _states(self, rows: list[tuple[uuid.UUID, float | None]]) -> list[str | None]:
        """What Redis calls each job, in one round trip; ``None``: it doesn't know it."""
        pipe = self._client.pipeline(transaction=False)
        for pk, _ in rows:
            pipe.hget(self._queue.keys.job(pk.hex), "state")
        return cast("list[str | None]", pipe.execute())

    def _tend(self, pk: uuid.UUID, deadline: float | None) -> bool:
        """One open row that Redis lost, that has ended, or that is late."""
        state = self._queue.state(pk.hex)
        late = deadline is not None and time.time() > deadline
        if state is None:
            return self._expire(pk, None) if late else self._requeue(pk)
        if state.state == "ended":
            return record(pk.hex, log=self._log, queue=self._queue)
        if deadline is not None and time.time() > deadline + DEADLINE_GRACE_S:
            return self._expire(pk, state)
        self._queue.cancel(pk.hex)
        return False

    def _requeue(self, pk: uuid.UUID) -> bool:
        """Redis lost it: again from the row, with an epoch that the lost run can't have had."""
        if not Job.objects.filter(pk=pk, state=Job.State.OPEN).update(
            epoch=F("epoch") + EPOCHS_A_LIFE
        ):
            return False
        job = Job.objects.select_related("team").get(pk=pk)
        logger.info("job_requeued", job=pk.hex, epoch=job.epoch)
        return dispatch.send(job)

    def _expire(self, pk: uuid.UUID, state: JobState | None) -> bool:
        """End the row itself: its deadline is long past, and no worker has said anything."""
        entries = list(archive.whole(self._log, pk.hex))
        if not (entries and entries[-1].terminal):
            usage = _made(pk, entries)
            event = Failed(
                code="deadline_exceeded",
                message="The deadline passed before the answer was complete. "
                "Allow more time, or ask for fewer tokens.",
                usage=usage,
            )
            entries.append(Entry(seq=len(entries) + 1, epoch=0, at=time.time(), event=event))
        won = end_row(pk.hex, entries, state=state)
        self._queue.forget(pk.hex)
        return won


def _made(pk: uuid.UUID, entries: list[Entry]) -> Usage:
    """What a log without its end has to be billed for."""
    tokens = sum(len(e.event.token_ids) for e in entries if isinstance(e.event, Delta))
    if not entries:
        return Usage()
    ids = Job.objects.values_list("input_ids", flat=True).get(pk=pk)
    return Usage(prompt_tokens=len(ids), completion_tokens=tokens)
