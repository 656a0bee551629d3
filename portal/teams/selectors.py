"""Reads about teams; each takes the viewer and returns what that viewer may see."""

from __future__ import annotations

import uuid

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db.models import F, QuerySet
from django.http import HttpRequest

from portal.accounts.models import User
from portal.teams.models import ApiKey, Membership, Team
from portal.teams.rules import VIEW, may
from portal.teams.services import anonymous_team, ensure_personal_team

SESSION_TEAM = "team"


def teams_of(user: User | AnonymousUser) -> QuerySet[Team]:
    """The teams that ``user`` belongs to, the personal one first."""
    if not isinstance(user, User):
        return Team.objects.none()
    return Team.objects.filter(memberships__user=user).order_by("-memberships__personal", "name")


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


def members_of(team: Team, *, viewer: User | AnonymousUser) -> QuerySet[Membership]:
    """The team's memberships with their users; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return Membership.objects.none()
    return Membership.objects.filter(team=team).select_related("user").order_by("created_at")


def keys_of(team: Team, *, viewer: User | AnonymousUser) -> QuerySet[ApiKey]:
    """The team's keys, live ones first and newest first; nothing for those who don't belong."""
    if not may(viewer, VIEW, team):
        return ApiKey.objects.none()
    keys = ApiKey.objects.filter(team=team).select_related("created_by")
    return keys.order_by(F("revoked_at").desc(nulls_first=True), "-created_at")
