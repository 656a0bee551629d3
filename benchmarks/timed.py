"""The portal with a stopwatch: ``daphne benchmarks.timed:application``.

It runs from the moment at which a request reaches the application until its job lies in the queue.
``GET /benchmark`` gives ``[[seconds, seconds of this process' processor], …]`` of the jobs since it
was last asked.
"""

from __future__ import annotations

import json
import time
from contextvars import ContextVar
from typing import Any

from portal.asgi import application as portal
from portal.jobs import dispatch
from portal.jobs.models import Job

_began: ContextVar[tuple[float, float] | None] = ContextVar("began", default=None)
_samples: list[tuple[float, float]] = []
_send = dispatch.send


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/benchmark":
        body = json.dumps(_samples).encode()
        _samples.clear()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    _began.set((time.perf_counter(), time.process_time()))
    await portal(scope, receive, send)


def _timed(job: Job) -> bool:
    sent = _send(job)
    if (began := _began.get()) is not None:
        _samples.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return sent


dispatch.send = _timed
