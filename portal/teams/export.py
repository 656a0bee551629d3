"""What teams keep about one person."""

from __future__ import annotations

from auditlog.models import LogEntry

from portal.accounts.export import Rows, section
from portal.accounts.models import User
from portal.teams.models import ApiKey, Membership


@section("memberships")
def memberships(user: User) -> Rows:
    for each in Membership.objects.filter(user=user).select_related("team"):
        yield {
            "team": each.team.name,
            "kind": each.team.kind,
            "role": each.role,
            "since": each.created_at,
        }


@section("api_keys")
def api_keys(user: User) -> Rows:
    """Without what opens anything."""
    for key in ApiKey.objects.filter(created_by=user).select_related("team").iterator():
        yield {
            "name": key.name,
            "team": key.team.name,
            "key": f"llm_{key.prefix}_…{key.last_four}",
            "created": key.created_at,
            "last_used": key.last_used_at,
            "revoked": key.revoked_at,
        }


@section("changes")
def changes(user: User) -> Rows:
    """What the audit log says that the person did."""
    done = LogEntry.objects.filter(actor=user).select_related("content_type").order_by("pk")
    for entry in done.iterator():
        yield {
            "at": entry.timestamp,
            "action": entry.get_action_display(),
            "kind": entry.content_type.model,
            "what": entry.object_repr,
            "changes": entry.changes,
        }
