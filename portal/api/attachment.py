"""Ties a job to the caller who made it: nobody waits for it any more, so it stops.

A caller that goes away shows as a request whose task is cancelled or dropped after a disconnect; a
server that shuts down cancels tasks too, without one, and the job goes on. A caller with an
Idempotency-Key has a grace to come back, to this process or another: a count in Redis says whether
it did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from asgiref.sync import sync_to_async

from portal.jobs import links
from portal.jobs.errors import Unavailable
from portal.jobs.models import Job
from portal.jobs.services import cancel_job

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
_COUNT_LIFE_SECONDS = 86_400
_leaving: set[asyncio.Task[None]] = set()


class Attachment:
    """Held by whoever reads the jobs for their creator; dropped without ``done``, it cancels them.

    Being dropped is what counts (``__del__``), because an answer whose caller leaves between the
    view and the first chunk is never run at all; ``leave`` is the same, at once.
    """

    def __init__(self, jobs: Sequence[Job], *, returning: bool, gone: Callable[[], bool]) -> None:
        """``returning``: the caller sent an Idempotency-Key, and may come back for the answer.
        ``gone`` says whether the caller went away; else it is the server that ends."""
        self._jobs = list(jobs)
        self._returning = returning
        self._gone = gone
        self._settled = False
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def make(
        cls, jobs: Sequence[Job], *, returning: bool, gone: Callable[[], bool]
    ) -> Attachment:
        attachment = cls(jobs, returning=returning, gone=gone)
        if returning:
            for job in jobs:
                await _count(job, 1)
        return attachment

    async def done(self) -> None:
        """The jobs ended, or their ends no longer hang on this caller."""
        if not self._settled:
            self._settled = True
            if self._returning:
                for job in self._jobs:
                    await _count(job, -1)

    def leave(self) -> None:
        """The caller went away, or the server ends. Returns at once."""
        if not self._settled:
            self._settled = True
            if self._gone():
                _start(self._jobs, self._returning)

    def __del__(self) -> None:
        if not self._settled and self._gone() and self._loop.is_running():
            self._loop.call_soon_threadsafe(_start, self._jobs, self._returning)


def _start(jobs: list[Job], returning: bool) -> None:
    task = asyncio.get_running_loop().create_task(leave(jobs, returning=returning))
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


async def leave(jobs: Sequence[Job], *, returning: bool) -> None:
    """Cancels the jobs, after the grace and unless their caller came back where it may."""
    left = [await _count(job, -1) for job in jobs] if returning else [0] * len(jobs)
    if returning and all(readers <= 0 for readers in left):
        await asyncio.sleep(GRACE_SECONDS)
        left = [await _count(job, 0) for job in jobs]
    for job, readers in zip(jobs, left, strict=True):
        if readers <= 0:
            logger.info("caller_left", extra={"job": job.id.hex})
            await _cancel(job)


async def _cancel(job: Job) -> None:
    try:
        await sync_to_async(cancel_job, thread_sensitive=False)(job=job)
    except Unavailable as error:  # the job runs to its end; nobody is left to tell
        logger.warning("cancel_failed", extra={"job": job.id.hex, "error": str(error)})


async def _count(job: Job, change: int) -> int:
    """Readers with the job's Idempotency-Key, in all processes, after ``change``."""
    key = f"llmasos:api:readers:{job.id.hex}"
    async with links.aclient().pipeline(transaction=True) as pipe:
        pipe.incrby(key, change)
        pipe.expire(key, _COUNT_LIFE_SECONDS)
        answers = await pipe.execute()
    return int(answers[0])
