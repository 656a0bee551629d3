"""Reads about usage."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import AnonymousUser
from django.db.models import FilteredRelation, Q, QuerySet
from django.utils import timezone

from portal.accounts.models import User
from portal.teams.models import ApiKey, Team
from portal.teams.rules import VIEW, may
from portal.usage.models import NO_KEY, UsageHour, UsageMonth
from portal.usage.policy import Standing, month_of


def standing(team: Team, *, now: datetime | None = None) -> Standing:
    """The team's month so far, read in one statement, whatever the team's size."""
    this_month = Q(
        usage_months__key_id=NO_KEY, usage_months__month=month_of(now or timezone.now()).date()
    )
    row = Team.objects.annotate(now=FilteredRelation("usage_months", condition=this_month))
    found = row.values("budget__monthly_tokens", "now__spent", "now__reserved").get(pk=team.pk)
    return Standing(
        found["budget__monthly_tokens"], found["now__spent"] or 0, found["now__reserved"] or 0
    )


def key_standing(key: ApiKey, *, now: datetime | None = None) -> Standing:
    """The same for a key, against its own budget."""
    rows = UsageMonth.objects.filter(
        team=key.team_id, key_id=key.pk, month=month_of(now or timezone.now()).date()
    )
    spent, reserved = rows.values_list("spent", "reserved").first() or (0, 0)
    return Standing(key.monthly_tokens, spent, reserved)


def hours(team: Team, *, viewer: User | AnonymousUser, since: datetime) -> QuerySet[UsageHour]:
    """The team's usage by hour and dimensions; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return UsageHour.objects.none()
    return UsageHour.objects.filter(team=team, hour__gte=since).order_by("hour")
