"""``/api/v1/tickets``: a key opens the WebSocket."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.http import HttpRequest
from ninja import Router, Status

from portal.api import creation
from portal.api.auth import KEY
from portal.api.errors import ERRORS, ErrorBody
from portal.api.native.common import caller_of
from portal.api.native.schemas import Ticket
from portal.jobs import tickets
from portal.jobs.errors import JobRefused
from portal.threads import in_thread

router = Router(tags=["Jobs"])


@router.post(
    "/tickets", auth=KEY, summary="Open the socket", response={201: Ticket, ERRORS: ErrorBody}
)
async def make_ticket(request: HttpRequest) -> Any:
    """A ticket for one WebSocket, to be used once and within half a minute: connect to its url.

    The socket sees the jobs of the key's team, for as long as the key is live.
    """
    try:
        ticket = await in_thread(tickets.issue)(key=caller_of(request).key)
    except JobRefused as error:
        raise creation.refusal(error, "") from error
    return Status(
        201, {"ticket": ticket, "expires_in": tickets.LIFE_S, "url": _url(request, ticket)}
    )


def _url(request: HttpRequest, ticket: str) -> str:
    """Where the caller found us, and the socket there."""
    parts = urlsplit(request.build_absolute_uri("/"))
    scheme = "wss" if parts.scheme == "https" else "ws"
    path = f"{settings.LLMASOS.prefix}/ws/jobs"
    return urlunsplit((scheme, parts.netloc, path, f"ticket={ticket}", ""))
