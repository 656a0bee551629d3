"""From a row to a running job: onto its model's fair queue, and a wake-up for the workers.

Neither may fail the request that made the row: what gets lost here, the keeper finds within
seconds; a lost wake-up costs at most the 250 ms between two looks of an idle worker.
"""

from __future__ import annotations

import threading
import time

import structlog
from redis.exceptions import RedisError

from inference_workers import contract
from inference_workers.contract import TASK_PULL, wakeup_queue
from portal.celery import app
from portal.jobs import links
from portal.jobs.models import Job

logger = structlog.get_logger(__name__)
WAKE_UP_EXPIRES_S = 30
REST_S = 0.25
"""Between two wake-ups; idle workers look as often by themselves."""


def describe(job: Job) -> contract.Job:
    """The row as workers know it. ``epoch`` is the last one that may have been given out."""
    return contract.Job(
        id=job.id.hex,
        team=job.team_id.hex,
        source=job.source,
        model=job.model_id,
        model_digest=job.model_digest,
        format=job.format,
        input_ids=tuple(job.input_ids),
        lengths=tuple(job.lengths),
        prefixes=tuple((salt, length) for salt, length in job.prefixes),
        pinned=job.pinned,
        sampling=contract.Sampling.model_validate(job.sampling),
        seed=job.seed,
        deadline=job.deadline,
        epoch=job.epoch,
    )


def send(job: Job) -> bool:
    """Queue it and wake a worker; ``False`` if that has to be done again later."""
    try:
        links.queue().enqueue(describe(job), weight=job.team.weight)
    except (RedisError, OSError) as error:
        logger.warning("enqueue_failed", job=job.id.hex, error=str(error))
        return False
    wake(job.model_id)
    return True


class _Waker:
    """Sends wake-ups from a thread of its own: nobody waits for a broker.

    Repeats are merged, and after a message the thread rests: making one costs more than making a
    job, idle workers hear of a job from its queue (``FairQueue.wait_jobs``), and busy ones look at
    each step.
    """

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def wake(self, model: str) -> None:
        with self._news:
            self._models.add(model)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)
                self._thread.start()
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._models:
                    self._news.wait()
                models, self._models = self._models, set()
            for model in models:
                self._send(model)
            time.sleep(REST_S)

    @staticmethod
    def _send(model: str) -> None:
        try:
            app.send_task(
                TASK_PULL,
                queue=wakeup_queue(model),
                expires=WAKE_UP_EXPIRES_S,
                ignore_result=True,
                retry=False,
            )
        except Exception as error:  # kombu and redis-py raise many kinds; the queue is the truth
            logger.warning("wake_up_failed", model=model, error=str(error))


_waker = _Waker()
wake = _waker.wake
"""Tell a model's workers to look now."""
