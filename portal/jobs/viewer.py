"""Who is looking: a user, or a visitor known only by a random name in the session."""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser

from portal.accounts.models import User
from portal.teams.models import Team

SESSION_VISITOR = "visitor"


@dataclass(frozen=True, slots=True)
class Viewer:
    """``user`` is an active user or ``None``; then ``session`` is the visitor's name, or empty.

    With a ``team`` the user sees that team's alone: an API key reaches no further.
    """

    user: User | None = None
    session: str = ""
    team: Team | None = None


def viewer_of(
    user: User | AnonymousUser, session: MutableMapping[str, Any], *, remember: bool = False
) -> Viewer:
    """The viewer behind a request or a socket.

    With ``remember`` a new visitor gets a name, which the session middleware then saves. It is not
    the session's key, so that what is stored with a job opens no session.
    """
    if isinstance(user, User):
        return Viewer(user=user) if user.is_active else Viewer()
    name = session.get(SESSION_VISITOR, "")
    if not name and remember:
        name = session[SESSION_VISITOR] = secrets.token_urlsafe(24)
    return Viewer(session=name)
