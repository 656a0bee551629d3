"""Reads about teams; each takes the viewer and returns what that viewer may see."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db.models import Case, F, QuerySet, Value, When
from django.http import HttpRequest
from django.utils import timezone

from portal.accounts.models import User
from portal.teams.models import ApiKey, Invitation, Membership, Team
from portal.teams.rules import (
    LEAST,
    MANAGE_BUDGET,
    MANAGE_KEYS,
    MANAGE_MEMBERS,
    RANK,
    VIEW,
    may,
    roles_from,
)
from portal.teams.services import anonymous_team, ensure_personal_team

SESSION_TEAM = "team"
UNREAD = timedelta(hours=1)


def teams_of(user: User | AnonymousUser) -> QuerySet[Team]:
    """The teams that ``user`` belongs to, the personal one first."""
    if not isinstance(user, User):
        return Team.objects.none()
    mine = Team.objects.filter(memberships__user=user, delete_at=None)
    return mine.order_by("-memberships__personal", "name")


def memberships_of(user: User) -> QuerySet[Membership]:
    """The user's own memberships with their teams, in the order of ``teams_of``."""
    mine = Membership.objects.filter(user=user, team__delete_at=None).select_related("team")
    return mine.order_by("-personal", "team__name")


def team_for(user: User | AnonymousUser, team_id: uuid.UUID | str) -> Team | None:
    """The team with that id, if ``user`` may see it."""
    try:
        wanted = uuid.UUID(str(team_id))
    except ValueError:
        return None
    return teams_of(user).filter(pk=wanted).first()


def current_team(request: HttpRequest) -> Team:
    """The team in whose name a page acts: the chosen one, the personal one, or the visitors'."""
    user = request.user
    if not isinstance(user, User) or not user.is_active:
        return anonymous_team()
    chosen = request.session.get(SESSION_TEAM)
    return (team_for(user, chosen) if chosen else None) or ensure_personal_team(user=user)


acurrent_team = sync_to_async(current_team)


def keys_of(team: Team, *, viewer: User | AnonymousUser) -> QuerySet[ApiKey]:
    """The team's keys, live ones first and newest first; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return ApiKey.objects.none()
    keys = ApiKey.objects.filter(team=team).select_related("created_by")
    return keys.order_by(F("revoked_at").desc(nulls_first=True), "-created_at")


def may_end(key: ApiKey, *, viewer: User) -> bool:
    """Whether the viewer may change or revoke it: one's own, or any for who manages members."""
    if may(viewer, MANAGE_MEMBERS, key.team):
        return True
    return may_renew(key, viewer=viewer)


def may_renew(key: ApiKey, *, viewer: User) -> bool:
    """Whether the viewer may see a new secret of it: whoever has it acts in its maker's name."""
    return key.created_by_id == viewer.pk and may(viewer, MANAGE_KEYS, key.team)


def members_of(team: Team, *, viewer: User | AnonymousUser) -> QuerySet[Membership]:
    """Who belongs to the team, owners first; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return Membership.objects.none()
    rank = Case(*(When(role=role, then=Value(value)) for role, value in RANK.items()))
    found = Membership.objects.filter(team=team).select_related("user", "team")
    return found.order_by(rank.desc(), "user__email")


def invitations_to(team: Team, *, viewer: User | AnonymousUser) -> QuerySet[Invitation]:
    """Invitations that still open the team's door; for those who manage its members."""
    if not may(viewer, MANAGE_MEMBERS, team):
        return Invitation.objects.none()
    waiting = Invitation.objects.filter(
        team=team, accepted_at=None, revoked_at=None, expires_at__gt=timezone.now()
    )
    return waiting.select_related("created_by", "team").order_by("-created_at")


def deleted_teams_of(user: User) -> QuerySet[Team]:
    """Teams that the user, as an owner, can still bring back."""
    mine = Team.objects.filter(memberships__user=user, memberships__role=Membership.Role.OWNER)
    return mine.filter(delete_at__gt=timezone.now()).order_by("delete_at")


def retention(*, now: datetime) -> list[tuple[uuid.UUID, datetime]]:
    """Teams that don't keep prompts and results for good, and what is due: what is older than that.

    A team that keeps none of what was read keeps what nobody has read, and conversations, for an
    hour.
    """
    rows = Team.objects.filter(retention_days__isnull=False).order_by("pk")
    return [
        (pk, now - (timedelta(days=days) if days else UNREAD))
        for pk, days in rows.values_list("pk", "retention_days")
    ]


def managers_of(team_id: uuid.UUID) -> list[User]:
    """Whom to write to about a team: its owners and admins."""
    roles = roles_from(LEAST[MANAGE_BUDGET])
    held = Membership.objects.filter(team=team_id, role__in=roles, user__is_active=True)
    return [row.user for row in held.select_related("user").order_by("pk")]
