"""What every page knows of teams: for whom one acts, and whom one could act for."""

from __future__ import annotations

from functools import cached_property

from django.http import HttpRequest

from portal.accounts.models import User
from portal.teams.members import role_in
from portal.teams.models import Membership, Team
from portal.teams.rules import READ_LOG, allows
from portal.teams.selectors import current_team, memberships_of

SHOWN = 30
"""Teams in the header's list; all of them are on a page of their own."""


class Acting:
    """Read only where a template asks: most pages of most people need one query, some none."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def team(self) -> Team:
        return current_team(self._request)

    @cached_property
    def choices(self) -> list[Membership]:
        """The viewer's memberships, with their teams."""
        user = self._request.user
        return list(memberships_of(user)[:SHOWN]) if isinstance(user, User) else []

    @cached_property
    def role(self) -> str:
        """The viewer's role in the team; empty for visitors."""
        user = self._request.user
        if not isinstance(user, User):
            return ""
        return role_in(self.team, user)

    @property
    def may_read_log(self) -> bool:
        return allows(self.role, READ_LOG)


def teams(request: HttpRequest) -> dict[str, Acting]:
    """Context processor."""
    return {"acting": Acting(request)}
