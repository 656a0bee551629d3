"""Writes about usage: reserve before a job starts, settle when its end is recorded.

All of it belongs in the caller's transaction and may be called again: a job is reserved once and
settled once, whoever comes first. Locks are taken in one order, the team's month before a key's.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F, QuerySet, UUIDField
from django.utils import timezone

from inference_workers.contract import Usage
from portal import audit
from portal.accounts.models import User
from portal.statements import insert
from portal.teams.models import ApiKey, Team
from portal.usage import policy
from portal.usage.acting import key_of
from portal.usage.models import (
    NO_KEY,
    NO_MEMBER,
    Budget,
    Reservation,
    UsageDay,
    UsageHour,
    UsageMonth,
)
from portal.usage.policy import Standing
from portal.usage.selectors import budget_of, key_standing, limit_and_sums, standing

MOST = 2**62
"""More than anybody spends, and as much as a database counts to."""


class OverBudget(Exception):
    """The month of the team, or of the key, has no room for the job's worst case.

    ``needed`` and ``left`` are tokens; ``retry_after`` is seconds until the next month.
    """

    def __init__(
        self, *, needed: int, left: int, retry_after: int, key: ApiKey | None = None
    ) -> None:
        whose = "team's budget" if key is None else f"budget of the API key …{key.last_four}"
        super().__init__(
            f"This request may use up to {needed} tokens, and the {whose} has {left} left "
            "this month. Ask for fewer tokens, or have the budget raised."
        )
        self.needed = needed
        self.left = left
        self.retry_after = retry_after


def check_budget(*, team: Team, tokens: int) -> int | None:
    """Refuse early what ``reserve`` would refuse now, by reading alone; the team's limit.

    Raises ``OverBudget``.
    """
    now, key = timezone.now(), key_of(team)
    limit, sums = limit_and_sums(team.pk, key.pk if key else NO_KEY, now)
    _check(Standing(limit, *sums[NO_KEY]), tokens, now)
    if key is not None:
        _check(Standing(key.monthly_tokens, *sums[key.pk]), tokens, now, key)
    return limit


def _check(month: Standing, tokens: int, now: datetime, key: ApiKey | None = None) -> None:
    if not month.allows(tokens):
        raise _over(month, tokens, now, key)


def _over(month: Standing, tokens: int, now: datetime, key: ApiKey | None) -> OverBudget:
    wait = policy.seconds_to_next_month(now)
    return OverBudget(needed=tokens, left=month.left or 0, retry_after=wait, key=key)


def reserve(
    *,
    team: Team,
    job_id: str | uuid.UUID,
    tokens: int,
    model: str = "",
    source: str = "",
    user: User | None = None,
) -> None:
    """Hold ``tokens`` of the month of the team, and of the key that acts, for a job.

    Raises ``OverBudget``, writing nothing. Exact: one conditional UPDATE compares and adds, so
    concurrent jobs can't share the same last tokens.
    """
    with transaction.atomic():
        if Reservation.objects.filter(job_id=job_id).exists():
            return
        hold(team=team, limit=budget_of(team), job_id=job_id, tokens=tokens, model=model,
             source=source, user=user)  # fmt: skip


def hold(
    *,
    team: Team,
    limit: int | None,
    job_id: str | uuid.UUID,
    tokens: int,
    model: str,
    source: str,
    user: User | None,
) -> None:
    """``reserve`` for a job that is new, by a caller who knows the team's ``limit`` and whose
    transaction ends with ``OverBudget``: without asking again for what is known."""
    now, key = timezone.now(), key_of(team)
    if not _add_to(_month(team.pk, NO_KEY, now), tokens, limit):
        raise _over(standing(team, now=now), tokens, now, None)
    if key is not None and not _add_to(_month(team.pk, key.pk, now), tokens, key.monthly_tokens):
        raise _over(key_standing(key, now=now), tokens, now, key)
    insert(
        Reservation(
            job_id=job_id,
            team=team,
            tokens=tokens,
            model=model,
            source=source,
            key_id=key.pk if key else NO_KEY,
            member_id=user.pk if user else NO_MEMBER,
            created_at=now,
        )
    )


def _month(team_id: uuid.UUID, key_id: uuid.UUID, moment: datetime) -> UsageMonth:
    month = policy.month_of(moment).date()
    return UsageMonth(team_id=team_id, key_id=key_id, month=month)


def _rows(month: UsageMonth) -> QuerySet[UsageMonth]:
    return UsageMonth.objects.filter(team_id=month.team_id, key_id=month.key_id, month=month.month)


def _add_to(month: UsageMonth, tokens: int, limit: int | None) -> bool:
    """Whether they fitted; the first of a month makes its row."""
    if _held(month, tokens, limit):
        return True
    if limit is not None and tokens > limit:
        return False
    UsageMonth.objects.bulk_create([month], ignore_conflicts=True)
    return _held(month, tokens, limit)


HOLD = """
UPDATE usage_usagemonth SET reserved = reserved + %s
WHERE team_id = %s AND key_id = %s AND month = %s AND spent + reserved <= %s
"""
_UUID: UUIDField[uuid.UUID, uuid.UUID] = UUIDField()


def _held(month: UsageMonth, tokens: int, limit: int | None) -> bool:
    """Compares and adds. Written out, because every job does it twice, and Django takes four times
    as long to put the statement together as the database takes to run it."""
    whose = [_UUID.get_db_prep_value(one, connection) for one in (month.team_id, month.key_id)]
    when = connection.ops.adapt_datefield_value(month.month)
    room = MOST if limit is None else limit - tokens
    with connection.cursor() as cursor:
        cursor.execute(HOLD, [tokens, *whose, when, room])
        return bool(cursor.rowcount)


def settle(*, job_id: str | uuid.UUID, usage: Usage, model: str = "", source: str = "") -> bool:
    """Turn a job's reservation into usage; ``False`` if somebody has done so, or never reserved.

    ``model`` and ``source`` default to what was reserved. It is booked where it was reserved, hour
    and month: a job that runs past midnight can't break into a new month's budget.
    """
    with transaction.atomic():
        held = _take(job_id)
        if held is None:
            return False
        _free(held, spent=usage.prompt_tokens + usage.completion_tokens)
        _roll_up(held, usage, model or held.model, source or held.source)
    return True


def release(*, job_id: str | uuid.UUID) -> bool:
    """Give a reservation back unused; ``False`` if there is none."""
    with transaction.atomic():
        held = _take(job_id)
        if held is not None:
            _free(held, spent=0)
    return held is not None


def _take(job_id: str | uuid.UUID) -> Reservation | None:
    """The reservation, for the one caller who deletes it."""
    held = Reservation.objects.filter(job_id=job_id).first()
    if held is None:
        return None
    deleted, _ = Reservation.objects.filter(job_id=job_id).delete()
    return held if deleted else None


def _free(held: Reservation, *, spent: int) -> None:
    for key_id in dict.fromkeys((NO_KEY, held.key_id)):
        _rows(_month(held.team_id, key_id, held.created_at)).update(
            reserved=F("reserved") - held.tokens, spent=F("spent") + spent
        )


def _roll_up(held: Reservation, usage: Usage, model: str, source: str) -> None:
    key = {
        "team_id": held.team_id,
        "model": model,
        "source": policy.app_of(source),
        "key_id": held.key_id,
        "member_id": held.member_id,
    }
    hour = policy.hour_of(held.created_at)
    _add(UsageHour, usage, key | {"hour": hour})
    _add(UsageDay, usage, key | {"day": hour.date()})


def _add(rows: type[UsageHour] | type[UsageDay], usage: Usage, key: dict[str, Any]) -> None:
    amounts = {
        "jobs": 1,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    added = {name: F(name) + amount for name, amount in amounts.items()}
    if rows.objects.filter(**key).update(**added):
        return
    try:
        with transaction.atomic():
            rows.objects.create(**key, **amounts)
    except IntegrityError:  # another job opened it in between
        rows.objects.filter(**key).update(**added)


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
