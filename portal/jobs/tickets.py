"""Tickets: they open one socket, once, soon, for whoever holds an API key.

A browser's WebSocket sends no headers of its own, and a key has no place in an address, where logs
keep it. Redis holds a ticket's hash until it is used or expires; the key must still be live then.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid

from redis.exceptions import RedisError

from portal.jobs import links
from portal.jobs.errors import Unavailable
from portal.jobs.viewer import Viewer
from portal.teams.models import ApiKey
from portal.teams.services import find_live_key

LIFE_S = 30
PREFIX = "llmasos:ticket:"


def issue(*, key: ApiKey) -> str:
    """A new ticket of ``key``. Raises ``Unavailable``."""
    ticket = secrets.token_urlsafe(32)
    try:
        links.client().set(_name(ticket), key.pk.hex, ex=LIFE_S)
    except (RedisError, OSError) as error:
        raise Unavailable("Tickets can't be made now. Try again in a moment.") from error
    return ticket


def redeem(ticket: str) -> tuple[Viewer, uuid.UUID] | None:
    """Who comes with it, and by which key; ``None`` if it was used, has expired or never was."""
    try:
        found = links.client().getdel(_name(ticket))
    except (RedisError, OSError):
        return None
    if not isinstance(found, bytes | str):
        return None
    text = found.decode() if isinstance(found, bytes) else found
    key = find_live_key(uuid.UUID(text))
    return None if key is None else (Viewer(user=key.created_by, team=key.team), key.pk)


def _name(ticket: str) -> str:
    return PREFIX + hashlib.sha256(ticket.encode(errors="surrogatepass")).hexdigest()
