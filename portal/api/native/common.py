"""What the native routes share: who calls, and what nobody may see."""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest

from portal.api.auth import Caller
from portal.api.errors import ApiError
from portal.jobs.viewer import Viewer


def caller_of(request: HttpRequest) -> Caller:
    return cast(Caller, request.auth)  # type: ignore[attr-defined]


def viewer_of(caller: Caller) -> Viewer:
    """The key's maker, who sees no more than the key's team."""
    return Viewer(user=caller.user, team=caller.team)


def not_found(what: str) -> ApiError:
    """Also for what is somebody else's."""
    return ApiError(404, f"There is no such {what}.", code="not_found")
