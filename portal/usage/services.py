"""Writes about usage: reserve before a job starts, settle when its end is recorded.

All of it belongs in the caller's transaction and may be called again: a job is reserved once and
settled once, whoever comes first.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from inference_workers.contract import Usage
from portal import audit
from portal.accounts.models import User
from portal.teams.models import Team
from portal.usage import policy
from portal.usage.models import Budget, Reservation, UsageHour
from portal.usage.selectors import standing


class OverBudget(Exception):
    """The team's month has no room for the job's worst case.

    ``needed`` and ``left`` are tokens; ``retry_after`` is seconds until the next month.
    """

    def __init__(self, *, needed: int, left: int, retry_after: int) -> None:
        super().__init__(
            f"This request may use up to {needed} tokens, and the team's budget has {left} left "
            "this month. Ask for fewer tokens, or have the budget raised."
        )
        self.needed = needed
        self.left = left
        self.retry_after = retry_after


def reserve(
    *, team: Team, job_id: str | uuid.UUID, tokens: int, model: str = "", source: str = ""
) -> None:
    """Hold ``tokens`` of the team's month for a job. Raises ``OverBudget``, writing nothing.

    Exact: the budget's row is locked while the sum is taken (on SQLite, the transaction itself is
    the lock), so concurrent jobs can't share the same last tokens.
    """
    with transaction.atomic():
        limited = Budget.objects.select_for_update().filter(team=team).exists()
        if Reservation.objects.filter(job_id=job_id).exists():
            return
        if limited:
            now = timezone.now()
            month = standing(team, now=now)
            if not month.allows(tokens):
                raise OverBudget(
                    needed=tokens,
                    left=month.left or 0,
                    retry_after=policy.seconds_to_next_month(now),
                )
        Reservation.objects.create(
            job_id=job_id, team=team, tokens=tokens, model=model, source=source
        )


def settle(
    *,
    job_id: str | uuid.UUID,
    usage: Usage,
    model: str = "",
    source: str = "",
    at: datetime | None = None,
) -> bool:
    """Turn a job's reservation into usage; ``False`` if somebody has done so, or never reserved.

    ``model`` and ``source`` default to what was reserved.
    """
    with transaction.atomic():
        held = _take(job_id)
        if held is None:
            return False
        _roll_up(held, usage, model or held.model, source or held.source, at or timezone.now())
    return True


def release(*, job_id: str | uuid.UUID) -> bool:
    """Give a reservation back unused; ``False`` if there is none."""
    return _take(job_id) is not None


def _take(job_id: str | uuid.UUID) -> Reservation | None:
    """The reservation, for the one caller who deletes it."""
    held = Reservation.objects.filter(job_id=job_id).first()
    if held is None:
        return None
    deleted, _ = Reservation.objects.filter(job_id=job_id).delete()
    return held if deleted else None


def _roll_up(held: Reservation, usage: Usage, model: str, source: str, at: datetime) -> None:
    key = {
        "team_id": held.team_id,
        "hour": policy.hour_of(at),
        "model": model,
        "source": source,
    }
    amounts = {
        "jobs": 1,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    added = {name: F(name) + amount for name, amount in amounts.items()}
    if UsageHour.objects.filter(**key).update(**added):
        return
    try:
        with transaction.atomic():
            UsageHour.objects.create(**key, **amounts)
    except IntegrityError:  # another job opened the hour in between
        UsageHour.objects.filter(**key).update(**added)


def set_budget(*, team: Team, monthly_tokens: int | None, actor: User | None = None) -> None:
    """Limit the team's calendar month, or with ``None`` lift the limit."""
    with transaction.atomic():
        before = Budget.objects.select_for_update().filter(team=team).first()
        was = before.monthly_tokens if before else None
        if monthly_tokens is None:
            Budget.objects.filter(team=team).delete()
        else:
            Budget.objects.update_or_create(team=team, defaults={"monthly_tokens": monthly_tokens})
        if was != monthly_tokens:
            changes = {"monthly_tokens": (was, monthly_tokens)}
            audit.record(actor=actor, action="update", instance=team, changes=changes)
