"""Writes to memberships: roles, leaving, removing, handing over.

Whoever changes who may do what holds the team's row while doing so (on SQLite, the transaction
itself is the lock): of two owners who leave at once, the second finds out that it is the last.
Roles are read under that lock, never taken from the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from portal import audit
from portal.accounts.models import User
from portal.teams.errors import LastOwner, NotAllowed
from portal.teams.models import ApiKey, Invitation, Membership, Team
from portal.teams.rules import MANAGE_MEMBERS, TRANSFER, allows, may_give, may_touch
from portal.teams.services import revoke_key

Role = Membership.Role


def owners(team: Team) -> QuerySet[Membership]:
    """Owners who can act: neither kept out nor about to delete their account."""
    able = Membership.objects.filter(user__is_active=True, user__delete_at=None)
    return able.filter(team=team, role=Role.OWNER)


@contextmanager
def locked(team: Team) -> Iterator[Team]:
    """A transaction in which nobody else changes the team or its members.

    Raises ``NotAllowed`` when the team is gone or awaits its end.
    """
    with transaction.atomic():
        row = Team.objects.select_for_update().filter(pk=team.pk, delete_at=None).first()
        if row is None:
            raise NotAllowed
        yield row


def change_role(*, membership: Membership, role: str, actor: User) -> bool:
    """Give a member another role; ``False`` if they have it already.

    Raises ``NotAllowed`` when the actor's role is below the old or the new one, ``LastOwner``.
    """
    with locked(membership.team) as team:
        member = _row(membership)
        mine = role_in(team, actor)
        if not (may_touch(mine, member.role) and may_give(mine, role)):
            raise NotAllowed
        if member.role == role:
            return False
        _set_role(member, role, actor=actor)
        _check_owner(team, after=member)
    return True


def remove_member(*, membership: Membership, actor: User) -> None:
    """End a membership, and with it the member's keys there. Leaving is removing oneself.

    Raises ``NotAllowed`` or ``LastOwner``; also for a personal team, which nobody leaves.
    """
    with locked(membership.team) as team:
        member = _row(membership)
        leaving = member.user_id == actor.pk
        if team.kind != Team.Kind.SHARED or not (
            leaving or may_touch(role_in(team, actor), member.role)
        ):
            raise NotAllowed
        for key in ApiKey.objects.filter(team=team, created_by=member.user_id, revoked_at=None):
            revoke_key(key=key, actor=actor)
        _withdraw_invitations(member)
        changes = {"role": (member.role, None)}
        audit.record(
            actor=actor, action="delete", instance=member, changes=changes, name=member.user.email
        )
        Membership.objects.filter(pk=member.pk).delete()
        _check_owner(team, after=member)


def transfer_ownership(*, team: Team, to: Membership, actor: User) -> None:
    """Make another member owner in one's own place; the actor stays as an admin.

    Raises ``NotAllowed`` unless the actor is an owner and ``to`` somebody else of the team.
    """
    with locked(team) as row:
        heir = _row(to)
        mine = Membership.objects.filter(team=row, user=actor).first()
        if mine is None or not allows(mine.role, TRANSFER):
            raise NotAllowed
        if heir == mine or heir.team_id != row.pk:
            raise NotAllowed
        if heir.role != Role.OWNER:
            _set_role(heir, Role.OWNER, actor=actor)
        _set_role(mine, Role.ADMIN, actor=actor)
        _check_owner(row, after=mine)


def role_in(team: Team, user: User) -> str:
    """The user's role; empty for outsiders."""
    found = Membership.objects.filter(team=team, user=user, user__is_active=True)
    return found.values_list("role", flat=True).first() or ""


def _row(membership: Membership) -> Membership:
    """As it is now, under the lock."""
    found = Membership.objects.select_related("user").filter(pk=membership.pk).first()
    if found is None:
        raise NotAllowed
    return found


def _set_role(member: Membership, role: str, *, actor: User) -> None:
    changed = Membership.objects.filter(pk=member.pk, role=member.role).update(role=role)
    assert changed, "the team's row is locked"
    changes = {"role": (member.role, role)}
    audit.record(
        actor=actor, action="update", instance=member, changes=changes, name=member.user.email
    )
    if not allows(role, MANAGE_MEMBERS):
        _withdraw_invitations(member)


def _withdraw_invitations(member: Membership) -> None:
    """An invitation holds no longer than its maker could make it again."""
    sent = Invitation.objects.filter(team=member.team_id, created_by=member.user_id)
    sent.filter(accepted_at=None, revoked_at=None).update(revoked_at=timezone.now())


def _check_owner(team: Team, *, after: Membership) -> None:
    """Last in the transaction, which it undoes; ``after`` is what was changed, as it was."""
    if after.role == Role.OWNER and not owners(team).exists():
        raise LastOwner
