"""Writes to teams themselves: made, renamed, deleted with a grace period, brought back, removed."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import ProtectedError, RestrictedError
from django.utils import timezone
from django.utils.translation import gettext as _

from portal import audit
from portal.accounts.models import User
from portal.accounts.removal import empty
from portal.teams.errors import NotAllowed, Refused
from portal.teams.members import locked, role_in
from portal.teams.models import Membership, Team
from portal.teams.rules import DELETE, RENAME, allows

NAME_LENGTH = 120
OWNED_LIMIT = 50
logger = structlog.get_logger(__name__)


def create_team(*, name: str, user: User) -> Team:
    """A shared team with ``user`` as its owner. Raises ``Refused``."""
    name = _clean(name)
    shared = Membership.objects.filter(user=user, role=Membership.Role.OWNER, personal=False)
    if shared.filter(team__delete_at=None).count() >= OWNED_LIMIT:
        raise Refused(_("You own 50 teams already. Delete one that is no longer used."))
    with transaction.atomic():
        team = Team.objects.create(name=name, kind=Team.Kind.SHARED)
        Membership.objects.create(team=team, user=user, role=Membership.Role.OWNER)
        audit.record(actor=user, action="create", instance=team)
    return team


def rename_team(*, team: Team, name: str, actor: User) -> bool:
    """``False`` if it has that name already. Raises ``Refused`` or ``NotAllowed``."""
    name = _clean(name)
    with locked(team) as row:
        if not allows(role_in(row, actor), RENAME):
            raise NotAllowed
        if row.name == name:
            return False
        Team.objects.filter(pk=row.pk).update(name=name)
        changes = {"name": (row.name, name)}
        audit.record(actor=actor, action="update", instance=row, changes=changes, name=name)
    team.name = name
    return True


def delete_team(*, team: Team, actor: User) -> datetime:
    """Hide the team from everybody at once, and remove it when the grace period is over.

    When that will be. Its keys stop, its sockets close; until then an owner can bring it back.
    Raises ``NotAllowed`` for all but owners, and for personal teams.
    """
    now = timezone.now()
    until = now + timedelta(days=settings.LLMASOS.deletion_grace_days)
    with locked(team) as row:
        if row.kind != Team.Kind.SHARED or not allows(role_in(row, actor), DELETE):
            raise NotAllowed
        Team.objects.filter(pk=row.pk, delete_at=None).update(delete_at=until)
        changes = {"delete_at": (None, until)}
        audit.record(actor=actor, action="update", instance=row, changes=changes)
    return until


def restore_team(*, team: Team, actor: User) -> bool:
    """Bring a deleted team back; ``False`` if it was not deleted, or is gone by now.

    Raises ``NotAllowed`` for all but its owners.
    """
    if not allows(role_in(team, actor), DELETE):
        raise NotAllowed
    with transaction.atomic():
        changed = Team.objects.filter(
            pk=team.pk, delete_at__isnull=False, delete_at__gt=timezone.now()
        ).update(delete_at=None)
        if changed:
            changes = {"delete_at": (team.delete_at, None)}
            audit.record(actor=actor, action="update", instance=team, changes=changes)
    return bool(changed)


def remove_teams(*, now: datetime | None = None) -> int:
    """Remove for good what has been deleted for long enough; how many teams that was."""
    due = Team.objects.filter(delete_at__lte=now or timezone.now()).order_by("delete_at")
    return sum(remove_team(team) for team in due)


def remove_team(team: Team) -> bool:
    """Everything of the team, in pieces, so that no transaction grows with its jobs."""
    name = team.pk.hex
    try:
        empty(team)
        team.delete()
    except (ProtectedError, RestrictedError) as error:
        logger.error("team_not_removed", team=name, error=str(error))
        return False
    logger.info("team_removed", team=name)
    return True


def _clean(name: str) -> str:
    name = " ".join(name.replace("\0", "").split())
    if not 1 <= len(name) <= NAME_LENGTH:
        raise Refused(_("A team's name has 1 to 120 characters."), field="name")
    return name
