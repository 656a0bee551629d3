"""Reads the team's audit log: who changed members, keys, budgets and apps, newest first.

Lines are found by number, never by counting: the last page costs what the first one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from auditlog.models import LogEntry
from django.contrib.auth.models import AnonymousUser
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import User
from portal.teams.farewell import GONE
from portal.teams.models import Membership, Team, TeamLog
from portal.teams.names import ROLE_NAMES
from portal.teams.rules import READ_LOG, may

PAGE = 50
Text = str | Promise

KINDS: dict[str, Text] = {
    "team": _("Team"),
    "membership": _("Member"),
    "invitation": _("Invitation"),
    "apikey": _("API key"),
    "budget": _("Budget"),
    "app": _("App"),
}
ACTIONS: dict[int, Text] = {
    LogEntry.Action.CREATE: _("added"),
    LogEntry.Action.UPDATE: _("changed"),
    LogEntry.Action.DELETE: _("removed"),
}
FIELDS: dict[str, Text] = {
    "role": _("role"),
    "name": _("name"),
    "delete_at": _("to be deleted"),
    "revoked_at": _("revoked"),
    "monthly_tokens": _("tokens a month"),
    "weight": _("weight"),
    "scopes": _("rights"),
    "allowed_models": _("models"),
    "requests_per_minute": _("requests a minute"),
    "tokens_per_minute": _("tokens a minute"),
    "expires_at": _("ends"),
    "last_four": _("last four characters"),
    "retention_days": _("days that prompts and answers are kept"),
}


@dataclass(frozen=True, slots=True)
class Change:
    field: Text
    old: Text
    new: Text


@dataclass(frozen=True, slots=True)
class Line:
    """``who`` is empty for the console."""

    number: int
    at: datetime
    who: Text
    kind: Text
    name: str
    action: Text
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class LogPage:
    """``older`` is what to ask for next; ``None`` at the end."""

    lines: list[Line]
    older: int | None


def log_of(team: Team, *, viewer: User | AnonymousUser, before: int | None = None) -> LogPage:
    """Lines older than number ``before``; none for those who may not read them."""
    if not may(viewer, READ_LOG, team):
        return LogPage([], None)
    rows = TeamLog.objects.filter(team=team).select_related("entry__actor", "entry__content_type")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows.order_by("-pk")[: PAGE + 1])
    lines = [_line(row) for row in found[:PAGE]]
    return LogPage(lines, lines[-1].number if len(found) > PAGE else None)


def _line(row: TeamLog) -> Line:
    entry = row.entry
    kind = entry.content_type.model
    return Line(
        number=row.pk,
        at=entry.timestamp,
        who=_who(entry),
        kind=KINDS.get(kind, kind),
        name=entry.object_repr,
        action=ACTIONS.get(entry.action, ""),
        changes=tuple(
            Change(FIELDS.get(field, field), _shown(old), _shown(new))
            for field, (old, new) in (entry.changes or {}).items()
        ),
    )


def _who(entry: LogEntry) -> Text:
    if entry.actor:
        return str(entry.actor)
    return _("a deleted account") if entry.actor_email == GONE else entry.actor_email or ""


def _shown(value: str) -> Text:
    if value in Membership.Role.values:
        return ROLE_NAMES[value]
    moment = parse_datetime(value) if value[:4].isdigit() and "-" in value else None
    return date_format(moment, "DATETIME_FORMAT") if moment else value
