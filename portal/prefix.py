"""Living below a path such as ``/ai``, whether or not the proxy in front takes it off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Prefixed:
    """Evens out what proxies do: pages see the whole path, as Django builds links and redirects
    from it; the socket's routes see the rest, as Channels has no script name. No prefix: no work.
    """

    def __init__(self, application: Application, *, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if self._prefix and scope["type"] in ("http", "websocket"):
            path: str = scope["path"]
            inside = path == self._prefix or path.startswith(self._prefix + "/")
            rest = path.removeprefix(self._prefix) if inside else path
            whole = self._prefix + rest
            scope = {**scope, "path": whole if scope["type"] == "http" else rest, "root_path": ""}
        await self._application(scope, receive, send)
