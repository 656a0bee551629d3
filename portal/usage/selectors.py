"""Reads about usage."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
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


def hours(team: Team, *, viewer: User | AnonymousUser, since: datetime) -> QuerySet[UsageHour]:
    """The team's usage by hour and dimensions; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return UsageHour.objects.none()
    return UsageHour.objects.filter(team=team, hour__gte=since).order_by("hour")
