"""Tells owners and admins when a budget is nearly used up: at 80 % and at 100 %, once a month each.

The team's budget and those of its keys. An alert is claimed before it is sent, so that of several
processes one sends it, and given back when the mail server refuses, so that it is tried again.
"""

from __future__ import annotations

from smtplib import SMTPException
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db.models import F, OuterRef, Q, Subquery
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from portal.accounts.languages import spoken_by
from portal.teams.models import ApiKey
from portal.teams.selectors import managers_of
from portal.usage.models import NO_KEY, UsageMonth
from portal.usage.policy import Standing, month_of

BATCH = 100
logger = structlog.get_logger(__name__)


def send_alerts() -> bool:
    """Send what is due; whether there may be more."""
    rows = _due()
    for row in rows:
        _tell(row)
    return len(rows) == BATCH


def _due() -> list[UsageMonth]:
    """This month's rows beyond 80 % of their limit (``limit``), where not all has been said."""
    own = ApiKey.objects.filter(pk=OuterRef("key_id"), revoked_at=None).values("monthly_tokens")
    month = month_of(timezone.now()).date()
    open_teams = UsageMonth.objects.filter(month=month, team__delete_at=None)
    found: list[UsageMonth] = []
    for rows in (
        open_teams.filter(key_id=NO_KEY).annotate(limit=F("team__budget__monthly_tokens")),
        open_teams.exclude(key_id=NO_KEY).annotate(limit=Subquery(own)),
    ):
        first = Q(told__lt=80, spent__gte=F("limit") * 0.8)
        second = Q(told__lt=100, spent__gte=F("limit") * 0.995)
        found += rows.filter(first | second).select_related("team")[: BATCH - len(found)]
    return found


def _tell(row: UsageMonth) -> None:
    limit: int = row.limit  # type: ignore[attr-defined]  # annotated in _due
    month = Standing(limit, row.spent, row.reserved)
    claimed = UsageMonth.objects.filter(pk=row.pk, told=row.told).update(told=month.alert)
    if not claimed or not month.alert:
        return
    try:
        _send(row, month)
    except (OSError, SMTPException) as error:
        UsageMonth.objects.filter(pk=row.pk, told=month.alert).update(told=row.told)
        logger.warning("alert_not_sent", team=row.team_id.hex, error=str(error))
    else:
        logger.info("alert_sent", team=row.team_id.hex, percent=month.alert)


def _send(row: UsageMonth, month: Standing) -> None:
    """To each by itself: members' addresses are nobody else's business."""
    key = ApiKey.objects.filter(pk=row.key_id).first() if row.key_id != NO_KEY else None
    place = urlsplit(settings.LLMASOS.url)
    context = {
        "team": row.team,
        "key": key,
        "month": month,
        "url": f"{place.scheme}://{place.netloc}{reverse('usage:limits')}",
    }
    with get_connection() as connection:
        for user in managers_of(row.team_id):
            with spoken_by(user):
                text = render_to_string("usage/alert.txt", context)
            subject, _, body = text.strip().partition("\n")
            message = EmailMessage(subject, body.strip() + "\n", to=[user.email])
            message.connection = connection
            message.send()
