"""Reads about usage."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import AnonymousUser
from django.db.models import BigIntegerField, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from portal.accounts.models import User
from portal.teams.models import Team
from portal.teams.rules import VIEW, may
from portal.usage.models import Reservation, UsageHour
from portal.usage.policy import Standing, month_of


def standing(team: Team, *, now: datetime | None = None) -> Standing:
    """The team's month so far, read in one statement.

    In two, a job settled between them would count neither as reserved nor as spent.
    """
    spent = UsageHour.objects.filter(team=OuterRef("pk"), hour__gte=month_of(now or timezone.now()))
    held = Reservation.objects.filter(team=OuterRef("pk"))
    row = Team.objects.annotate(
        spent=_total(spent, F("prompt_tokens") + F("completion_tokens")),
        reserved=_total(held, F("tokens")),
    ).values("budget__monthly_tokens", "spent", "reserved")
    found = row.get(pk=team.pk)
    return Standing(found["budget__monthly_tokens"], found["spent"], found["reserved"])


def _total(rows: QuerySet[UsageHour] | QuerySet[Reservation], amount: F | object) -> Coalesce:
    summed = rows.order_by().values("team").annotate(total=Sum(amount)).values("total")
    return Coalesce(Subquery(summed, output_field=BigIntegerField()), 0)


def hours(team: Team, *, viewer: User | AnonymousUser, since: datetime) -> QuerySet[UsageHour]:
    """The team's usage by hour, model and source; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return UsageHour.objects.none()
    return UsageHour.objects.filter(team=team, hour__gte=since).order_by("hour")
