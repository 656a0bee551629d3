"""Reads about jobs; each takes the viewer and finds only what that viewer may see."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet
from redis.exceptions import RedisError

from inference_workers.contract import Entry
from portal.jobs import archive, links
from portal.jobs.models import Job
from portal.jobs.viewer import Viewer
from portal.teams.models import Team
from portal.threads import in_thread


def visible_to(viewer: Viewer) -> QuerySet[Job]:
    """Jobs of the viewer's teams; a visitor's are those of the own session."""
    if viewer.user is not None:
        jobs = Job.objects.filter(team__memberships__user=viewer.user, team__delete_at=None)
        return jobs if viewer.team is None else jobs.filter(team=viewer.team)
    if viewer.session:
        return Job.objects.filter(team__kind=Team.Kind.ANONYMOUS, session=viewer.session)
    return Job.objects.none()


def job_for(viewer: Viewer, job_id: str | uuid.UUID) -> Job:
    """Raises ``Job.DoesNotExist`` also for a job that is somebody else's."""
    try:
        wanted = uuid.UUID(str(job_id))
    except ValueError:
        raise Job.DoesNotExist from None
    return visible_to(viewer).defer("input_ids", "lengths", "prefixes").get(pk=wanted)


ajob_for = in_thread(job_for)


def page(
    viewer: Viewer, *, limit: int, before: str | None = None, state: str | None = None
) -> list[Job]:
    """The newest ``limit`` jobs, older than ``before``, without their prompts and logs.

    Raises ``Job.DoesNotExist`` where ``before`` is none of the viewer's.
    """
    rows = visible_to(viewer).defer("input_ids", "lengths", "prefixes", "log")
    if before is not None:
        last = job_for(viewer, before)
        rows = rows.filter(
            Q(queued_at__lt=last.queued_at) | Q(queued_at=last.queued_at, pk__lt=last.pk)
        )
    if state is not None:
        rows = rows.filter(state=state)
    return list(rows.order_by("-queued_at", "-pk")[:limit])


def still_visible(viewer: Viewer, job_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Which of the jobs the viewer may see now."""
    return set(visible_to(viewer).filter(pk__in=job_ids).values_list("pk", flat=True))


def entries(job: Job, after: int = 0) -> list[Entry]:
    """A recorded job's log; empty while the job is open."""
    return list(archive.unpack(job.log, after))


def goes_on(job: Job, after: int) -> bool:
    """Whether a recorded job's log has an entry behind ``after``."""
    return next(archive.unpack(job.log, after), None) is not None


text_of = archive.text_of


@dataclass(frozen=True, slots=True)
class Said:
    """What one choice says by entry ``last_seq``: go on reading after that."""

    text: str
    last_seq: int


def said(job: Job, choice: int = 0) -> Said:
    """What a job has said by now; of an open one, what Redis has of it.

    The end of a row that is open still is left to be read: who starts after it would never hear of
    it, and wait.
    """
    found = log_of(job)
    if job.state == Job.State.OPEN and found and found[-1].terminal:
        found = found[:-1]
    return Said(archive.text_of(found, choice), found[-1].seq if found else 0)


def outputs(job: Job) -> tuple[list[str], int]:
    """What each choice has said by now, and the number of the last entry that was read for it."""
    found = log_of(job)
    count = int(job.sampling.get("n", 1))
    texts = [archive.text_of(found, choice) for choice in range(count)]
    return texts, found[-1].seq if found else 0


def log_of(job: Job) -> list[Entry]:
    """A job's whole log; of an open one, what Redis has of it."""
    if job.state != Job.State.OPEN:
        return entries(job)
    try:
        return list(archive.whole(links.log(), job.pk.hex))
    except (RedisError, OSError):
        return []


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a recorded job, from the times that Redis noted. Seconds."""

    prompt_tokens: int
    completion_tokens: int
    queued_s: float | None
    first_token_s: float | None
    total_s: float | None
    tokens_per_second: float | None


def stats(job: Job) -> Stats:
    """Rates count the gaps between tokens: n tokens have n - 1."""
    first, last = job.first_token_at, job.last_token_at
    spent = (last - first).total_seconds() if first and last else 0.0
    steps = job.completion_tokens - 1

    def since_queued(moment: datetime | None) -> float | None:
        if moment is None:
            return None
        return round(max(0.0, (moment - job.queued_at).total_seconds()), 4)

    return Stats(
        prompt_tokens=job.prompt_tokens,
        completion_tokens=job.completion_tokens,
        queued_s=since_queued(job.claimed_at),
        first_token_s=since_queued(first),
        total_s=since_queued(last),
        tokens_per_second=round(steps / spent, 2) if steps > 0 and spent > 0 else None,
    )
