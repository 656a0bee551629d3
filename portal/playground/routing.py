"""WebSocket routes."""

from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import re_path

from portal.playground.consumer import JobsConsumer


class NothingHere(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Refuses with 403; without it an unknown path is a traceback in the log."""

    async def connect(self) -> None:
        await self.close()


websocket_urlpatterns: list[Any] = [
    # Behind a proxy that keeps our prefix, the path begins with it.
    re_path(r"^(?:[\w./-]*/)?ws/jobs$", JobsConsumer.as_asgi()),
    re_path(r"", NothingHere.as_asgi()),
]
