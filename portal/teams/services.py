"""Writes to teams: people's own teams and the visitors' one. Those to API keys lie in ``keys``."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from portal import audit
from portal.accounts.models import User
from portal.accounts.services import create_user
from portal.teams.keys import (
    KEY_PATTERN,
    KeyRefused,
    authenticate_key,
    create_key,
    find_live_key,
    is_key_live,
    live_keys,
    revoke_key,
)
from portal.teams.models import Membership, Team

__all__ = [
    "KEY_PATTERN",
    "KeyRefused",
    "anonymous_team",
    "authenticate_key",
    "create_key",
    "ensure_personal_team",
    "find_live_key",
    "is_key_live",
    "live_keys",
    "register",
    "revoke_key",
    "set_retention",
    "set_weight",
]

LONGEST_RETENTION_DAYS = 3650


def register(
    *, email: str, password: str, operator: bool = False, actor: User | None = None
) -> User:
    """A user with a personal team; raises what ``accounts.services.create_user`` raises."""
    with transaction.atomic():
        user = create_user(email=email, password=password, operator=operator, actor=actor)
        ensure_personal_team(user=user)
    return user


def ensure_personal_team(user: User) -> Team:
    """The team that is ``user``'s own, made if it is not there; safe to call at any time."""
    found = Team.objects.filter(memberships__user=user, memberships__personal=True).first()
    if found is not None:
        return found
    try:
        with transaction.atomic():
            team = Team.objects.create(name=_personal_name(user), kind=Team.Kind.PERSONAL)
            Membership.objects.create(
                team=team, user=user, role=Membership.Role.OWNER, personal=True
            )
            return team
    except IntegrityError:  # somebody else was first: the database holds one for each user
        return Team.objects.get(memberships__user=user, memberships__personal=True)


def _personal_name(user: User) -> str:
    return (user.name or user.email.partition("@")[0])[:120]


def anonymous_team() -> Team:
    """The one team that all visitors without an account share."""
    team, _created = Team.objects.get_or_create(
        kind=Team.Kind.ANONYMOUS, defaults={"name": "Visitors"}
    )
    return team


def set_weight(*, team: Team, weight: float, actor: User | None = None) -> None:
    """The team's share of the workers against other teams; above 0."""
    with transaction.atomic():
        row = Team.objects.select_for_update().get(pk=team.pk)
        if row.weight != weight:
            changes = {"weight": (row.weight, weight)}
            Team.objects.filter(pk=team.pk).update(weight=weight)
            audit.record(actor=actor, action="update", instance=team, changes=changes)


def set_retention(*, team: Team, days: int | None, actor: User | None = None) -> None:
    """How long the team's prompts and results are kept: days, 0 for not at all, ``None`` for good.

    Raises ``ValueError`` beyond ten years.
    """
    if days is not None and not 0 <= days <= LONGEST_RETENTION_DAYS:
        raise ValueError(f"days is 0 to {LONGEST_RETENTION_DAYS}")
    with transaction.atomic():
        row = Team.objects.select_for_update().get(pk=team.pk)
        if row.retention_days != days:
            changes = {"retention_days": (row.retention_days, days)}
            Team.objects.filter(pk=team.pk).update(retention_days=days)
            audit.record(actor=actor, action="update", instance=team, changes=changes)
