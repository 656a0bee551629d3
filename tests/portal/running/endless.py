"""An application with an answer that has no end, and one that says how much of it was made.

That one also says how often the server ``asked`` the loop whether a socket takes what is written.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from twisted.internet import reactor

PART = b"x" * 10_000
made = {"bytes": 0, "open": 0, "asked": 0}
_ask: Any = reactor.addWriter  # type: ignore[attr-defined]


def _counted(writer: Any) -> None:
    made["asked"] += 1
    _ask(writer)


reactor.addWriter = _counted  # type: ignore[attr-defined]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/endless":
        await _endless(receive, send)
    elif scope["path"] == "/parts":
        for part in (b"a", b"b", b"c"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": json.dumps(made).encode()})


async def _endless(receive: Any, send: Any) -> None:
    """Until the caller leaves, as Django's handler does it."""
    await receive()
    made["open"] += 1
    made["bytes"] = 0
    sending = asyncio.ensure_future(_send(send))
    while (await receive())["type"] != "http.disconnect":
        pass
    sending.cancel()
    made["open"] -= 1


async def _send(send: Any) -> None:
    while True:
        await send({"type": "http.response.body", "body": PART, "more_body": True})
        made["bytes"] += len(PART)
        await asyncio.sleep(0)
