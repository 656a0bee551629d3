"""Tells a caller that went away from a server that shuts down: both cancel a request's task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.http import HttpRequest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FLAG = "llmasos.gone"


class NoteDisconnects:
    """ASGI middleware: keeps in the scope whether ``http.disconnect`` was received."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone: list[bool] = []
        scope[_FLAG] = gone

        async def watched() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "http.disconnect":
                gone.append(True)
            return message

        await self._application(scope, watched, send)


def watch(request: HttpRequest) -> Callable[[], bool]:
    """Says later whether the caller of ``request`` went away. Without the middleware: always."""
    gone = getattr(request, "scope", {}).get(_FLAG)
    return lambda: gone is None or bool(gone)


def marker(request: HttpRequest) -> Callable[[], None]:
    """Treats the caller as gone, when called, though the connection stands. It does not hold on to
    the request: an answer that nobody refers to any more has to be dropped at once."""
    gone = getattr(request, "scope", {}).get(_FLAG)
    return lambda: gone.append(True) if gone is not None else None
