"""Prompts and results go when their team no longer keeps them; the row stays, for its figures.

``drop_old`` goes by age. ``drop_read`` is for teams that keep none: what was recorded and read goes
within seconds. A job that a conversation shows stays as long as the conversation (which is known
here by the reverse relation alone); what a response keeps of its prompt goes along with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from django.apps import apps
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from redis.exceptions import RedisError

from inference_workers.contract import Entry, Failed
from portal.jobs import links
from portal.jobs.models import Job
from portal.teams.selectors import retention

BATCH = 500
READ_GRACE = timedelta(seconds=10)
"""A connection that broke with the last words on the way may ask for them again."""

REDIS_SECONDS = 1
logger = structlog.get_logger(__name__)


def drop_read() -> bool:
    """One batch of fleeting jobs whose end was read; whether there may be more."""
    due = Job.objects.filter(fleeting=True, read_at__lt=timezone.now() - READ_GRACE, messages=None)
    return _drop(due.order_by("read_at"))


def drop_old() -> bool:
    """At most one batch of each team's; whether there may be more."""
    more = False
    now = timezone.now()
    for team, oldest in retention(now=now):
        due = Job.objects.filter(team=team, recorded_at__lt=oldest)
        if oldest > now - timedelta(days=1):
            due = due.filter(messages=None)
        more |= _drop(due.order_by("recorded_at"))
    return more


def _drop(due: QuerySet[Job]) -> bool:
    kept = due.filter(dropped_at=None).exclude(state=Job.State.OPEN)
    ids = list(kept.values_list("pk", flat=True)[:BATCH])
    if ids:
        drop(ids)
    return len(ids) == BATCH


def drop(ids: Sequence[uuid.UUID]) -> int:
    """Forget what these ended jobs were asked and answered; how many that was."""
    ended = Job.objects.filter(pk__in=ids, dropped_at=None).exclude(state=Job.State.OPEN)
    responses = apps.get_model("responses", "Response")._base_manager
    with transaction.atomic():
        dropped = ended.update(
            dropped_at=timezone.now(),
            input_ids=[],
            lengths=[],
            prefixes=[],
            sampling={},
            log=None,
            error_message="",
            idempotency_key="",
            request_digest="",
        )
        responses.filter(pk__in=ids, job__dropped_at__isnull=False).delete()
    try:
        for pk in ids:
            links.queue().forget(pk.hex, REDIS_SECONDS)
    except (RedisError, OSError) as error:  # Redis forgets a recorded job by itself
        logger.info("redis_not_told", error=str(error))
    return dropped


def gone(after: int, dropped_at: datetime) -> Entry:
    """What somebody hears who asks for an answer that is no longer kept."""
    event = Failed(
        code="no_longer_kept",
        message="This answer is no longer kept: its team lets prompts and answers go after a time. "
        "Ask again.",
    )
    return Entry(seq=after + 1, epoch=0, at=dropped_at.timestamp(), event=event)
