"""The portal with a stop-watch inside: what an answer costs without what its client costs.

``portal.serve tests.faults.inside:application`` writes lines of JSON to the file that ``STOPWATCH``
names: for an answer its status and the seconds from the request's arrival in the application to the
answer's headers, and every ten milliseconds by how many seconds the event loop came late.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from portal.asgi import application as portal

PAUSE = 0.01
_file = open(os.environ["STOPWATCH"], "a", buffering=1)  # noqa: SIM115  (as long as the process)
_late: asyncio.Task[None] | None = None


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    global _late
    _late = _late or asyncio.ensure_future(_feel())
    begin = time.perf_counter()

    async def timed(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            _note(status=message["status"], seconds=time.perf_counter() - begin)
        await send(message)

    await portal(scope, receive, timed)


async def _feel() -> None:
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(PAUSE)
        _note(late=time.perf_counter() - begin - PAUSE)


def _note(**what: float) -> None:
    _file.write(json.dumps({"at": time.time()} | what) + "\n")
