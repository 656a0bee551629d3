"""Reads about usage."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import QuerySet, UUIDField
from django.utils import timezone

from portal.accounts.models import User
from portal.teams.models import ApiKey, Team
from portal.teams.rules import VIEW, may
from portal.usage.models import NO_KEY, Budget, UsageHour, UsageMonth
from portal.usage.policy import Standing, month_of


def budget_of(team: Team) -> int | None:
    """The team's limit for a month, in tokens; ``None``: no limit."""
    rows = Budget.objects.filter(team=team.pk)
    return next(iter(rows.values_list("monthly_tokens", flat=True)), None)


def standing(team: Team, *, now: datetime | None = None) -> Standing:
    """The team's month so far, against its budget."""
    return Standing(budget_of(team), *sums_of(team.pk, [NO_KEY], now)[NO_KEY])


def key_standing(key: ApiKey, *, now: datetime | None = None) -> Standing:
    """The same for a key, against its own budget."""
    return Standing(key.monthly_tokens, *sums_of(key.team_id, [key.pk], now)[key.pk])


def sums_of(
    team_id: UUID, key_ids: Collection[UUID], now: datetime | None = None
) -> dict[UUID, tuple[int, int]]:
    """Tokens spent and reserved this month by a team (``NO_KEY``) and by its keys, in one statement
    that reads a row for each, whatever they used."""
    month = month_of(now or timezone.now()).date()
    rows = UsageMonth.objects.filter(team=team_id, key_id__in=key_ids, month=month)
    values = rows.values_list("key_id", "spent", "reserved")
    return dict.fromkeys(key_ids, (0, 0)) | {key: (spent, held) for key, spent, held in values}


LIMIT_AND_SUMS = """
SELECT NULL, monthly_tokens, 0 FROM usage_budget WHERE team_id = %s
UNION ALL
SELECT key_id, spent, reserved FROM usage_usagemonth
WHERE team_id = %s AND month = %s AND key_id IN (%s, %s)
"""
_UUID: UUIDField[UUID, UUID] = UUIDField()


def limit_and_sums(
    team_id: UUID, key_id: UUID, now: datetime
) -> tuple[int | None, dict[UUID, tuple[int, int]]]:
    """What ``budget_of`` and ``sums_of`` say of a team and a key of its, in one statement."""
    month = connection.ops.adapt_datefield_value(month_of(now).date())
    team, key, none = (
        _UUID.get_db_prep_value(one, connection) for one in (team_id, key_id, NO_KEY)
    )
    with connection.cursor() as cursor:
        cursor.execute(LIMIT_AND_SUMS, [team, team, month, none, key])
        rows = cursor.fetchall()
    limit = next((most for whose, most, _ in rows if whose is None), None)
    sums = {_UUID.to_python(whose): (spent, held) for whose, spent, held in rows if whose}
    return limit, dict.fromkeys((NO_KEY, key_id), (0, 0)) | sums


def hours(team: Team, *, viewer: User | AnonymousUser, since: datetime) -> QuerySet[UsageHour]:
    """The team's usage by hour and dimensions; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return UsageHour.objects.none()
    return UsageHour.objects.filter(team=team, hour__gte=since).order_by("hour")
