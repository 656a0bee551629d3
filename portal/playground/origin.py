"""A browser's socket must come from our own pages: cookies travel with sockets of any page.

Browsers always send ``Origin`` with a WebSocket, and no page can forge it. Absent, ``null`` and
foreign ones are refused with 403 before anything is accepted. A socket that comes with a ticket is
let through: its cookies don't count (``portal.playground.consumer``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class SameOrigin:
    """Lets a socket through when its ``Origin`` is the host that it was sent to, or ours."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        origin = headers.get(b"origin", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        if ticket_of(scope) is None and not is_ours(origin, host):
            denier: Application = WebsocketDenier()
            return await denier(scope, receive, send)
        return await self._application(scope, receive, send)


def ticket_of(scope: Mapping[str, Any]) -> str | None:
    """The ticket in the socket's address, however bad; ``None`` where there is none."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return query["ticket"][0] if "ticket" in query else None


def is_ours(origin: str, host: str) -> bool:
    """Whether ``origin`` names this portal. Pure but for the settings' names and URL."""
    try:
        parts = urlsplit(origin)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    if origin == "{0.scheme}://{0.netloc}".format(urlsplit(settings.LLMASOS.url)):
        return True
    allowed = settings.ALLOWED_HOSTS
    domain, asked = split_domain_port(host.lower())
    if not domain or not validate_host(domain, allowed):
        return False
    same_port = int(asked) == port if asked else port in (80, 443)
    return domain.strip("[]") == parts.hostname and same_port
