"""Deleting one's account: asked for, undone by signing in, carried out when the time is over.

It lives in teams, because an account takes its personal team along and must leave none of the
others without an owner.

MustHandOver    names the teams that would be left with members and no owner
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from allauth.usersessions.models import UserSession
from auditlog.models import LogEntry
from django.conf import settings
from django.db import transaction
from django.db.models import ProtectedError, RestrictedError
from django.utils import timezone

from portal import audit
from portal.accounts.models import User
from portal.accounts.removal import empty
from portal.teams.lifecycle import remove_team
from portal.teams.members import owners
from portal.teams.models import Membership, Team

GONE = "deleted account"
"""Stands in the log for whoever has gone."""

logger = structlog.get_logger(__name__)


class MustHandOver(Exception):
    def __init__(self, teams: list[Team]) -> None:
        super().__init__(", ".join(team.name for team in teams))
        self.teams = teams


def teams_to_hand_over(user: User) -> list[Team]:
    """Shared teams with other members of which the user is the last owner who can act."""
    mine = Membership.objects.filter(user=user, role=Membership.Role.OWNER)
    shared = Team.objects.filter(pk__in=mine.values("team"), kind=Team.Kind.SHARED, delete_at=None)
    return [
        team
        for team in shared.order_by("pk")
        if team.memberships.exclude(user=user).exists()
        and not owners(team).exclude(user=user).exists()
    ]


def request_deletion(*, user: User) -> datetime:
    """Sign the user out everywhere, stop their keys, and remove the account after the grace period.

    When that will be. Raises ``MustHandOver``.
    """
    until = timezone.now() + timedelta(days=settings.LLMASOS.deletion_grace_days)
    with transaction.atomic():
        mine = Membership.objects.filter(user=user, role=Membership.Role.OWNER)
        list(Team.objects.select_for_update().filter(pk__in=mine.values("team")).order_by("pk"))
        if blocked := teams_to_hand_over(user):
            raise MustHandOver(blocked)
        User.objects.filter(pk=user.pk, delete_at=None).update(delete_at=until)
        audit.record(
            actor=user, action="update", instance=user, changes={"delete_at": (None, until)}
        )
    for session in UserSession.objects.filter(user=user):
        session.end()
    user.delete_at = until
    return until


def cancel_deletion(*, user: User) -> bool:
    """Keep the account after all; ``False`` if nobody wanted it gone."""
    with transaction.atomic():
        kept = User.objects.filter(pk=user.pk, is_active=True, delete_at__isnull=False)
        if not kept.update(delete_at=None):
            return False
        changes = {"delete_at": (user.delete_at, None)}
        audit.record(actor=user, action="update", instance=user, changes=changes)
    user.delete_at = None
    return True


def remove_accounts(*, now: datetime | None = None) -> int:
    """Remove accounts whose grace period is over; how many that was."""
    due = User.objects.filter(delete_at__lte=now or timezone.now()).order_by("delete_at")
    return sum(_remove(user) for user in due)


def _remove(user: User) -> bool:
    if blocked := teams_to_hand_over(user):
        names = [team.pk.hex for team in blocked]
        logger.error("account_not_removed", user=user.pk, reason="last owner", teams=names)
        return False
    # From here on nobody can sign in and change their mind.
    claimed = User.objects.filter(pk=user.pk, delete_at=user.delete_at).update(is_active=False)
    if not claimed:
        return False
    number = user.pk
    try:
        for team in Team.objects.filter(memberships__user=user):
            if not team.memberships.exclude(user=user).exists():
                remove_team(team)
        for member in Membership.objects.filter(user=user).select_related("team"):
            changes = {"role": (member.role, None)}
            audit.record(actor=None, action="delete", instance=member, changes=changes, name=GONE)
        LogEntry.objects.filter(actor=user).update(actor_email=GONE)
        empty(user)
        user.delete()
    except (ProtectedError, RestrictedError) as error:
        logger.error("account_not_removed", user=number, error=str(error))
        return False
    logger.info("account_removed", user=number)
    return True
