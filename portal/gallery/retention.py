"""What people filled into apps goes when their team no longer keeps such things."""

from __future__ import annotations

from django.utils import timezone

from portal.gallery.models import AppRun
from portal.teams.selectors import retention

BATCH = 500


def drop_old() -> bool:
    """At most one batch of each team's; whether there may be more."""
    more = False
    now = timezone.now()
    for team, oldest in retention(now=now):
        due = AppRun.objects.filter(team=team, created_at__lt=oldest, dropped_at=None)
        ids = list(due.order_by("created_at").values_list("pk", flat=True)[:BATCH])
        AppRun.objects.filter(pk__in=ids).update(inputs={}, dropped_at=now)
        more |= len(ids) == BATCH
    return more
