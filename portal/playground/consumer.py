"""``/ws/jobs``: one socket for all the jobs that a page follows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from channels.generic.websocket import AsyncWebsocketConsumer

from portal.jobs.tickets import redeem
from portal.jobs.viewer import Viewer, viewer_of
from portal.playground.guard import GROUP, Guarded, guard
from portal.playground.origin import Application, ticket_of
from portal.playground.stream import Multiplexer
from portal.threads import in_thread

SIGNED_OUT = 4401
"""The close code that tells the page to sign in again instead of reconnecting."""


class Straight:
    """Leaves a socket's own way out in ``scope["straight"]``: Channels looks at the session for
    each message that goes past it, which for an entry costs as much as to send it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await self._application({**scope, "straight": send}, receive, send)


class JobsConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Parses nothing and knows nothing: ``Multiplexer`` answers, ``Guard`` ends it."""

    groups = [GROUP]

    async def connect(self) -> None:
        found = await self._caller()
        if found is None:
            await self.close()
            return
        viewer, session, key = found
        self.stream = Multiplexer(viewer, self._send_text)
        self.guarded = Guarded(viewer, session, self.stream.watched, self._end, key)
        await self.accept()
        guard().add(self.guarded)

    async def _caller(self) -> tuple[Viewer, str, UUID | None] | None:
        """Whoever came with a ticket is its key's maker, whatever the cookies say."""
        scope: dict[str, Any] = self.scope
        ticket = ticket_of(scope)
        if ticket is None:
            viewer = await in_thread(viewer_of)(scope["user"], scope["session"])
            return viewer, scope["session"].session_key or "", None
        redeemed = await in_thread(redeem)(ticket)
        return None if redeemed is None else (redeemed[0], "", redeemed[1])

    async def _send_text(self, text: str) -> None:
        await self.scope["straight"]({"type": "websocket.send", "text": text})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.stream.receive(text_data)

    async def look_now(self, message: dict[str, Any]) -> None:
        """Somebody signed out, was disabled or left a team."""
        guard().look_now()

    async def _end(self) -> None:
        guard().remove(self.guarded)
        await self.stream.close()
        await self.close(code=SIGNED_OUT)

    async def disconnect(self, code: int) -> None:
        if hasattr(self, "guarded"):
            guard().remove(self.guarded)
            await self.stream.close()
