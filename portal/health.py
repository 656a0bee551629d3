"""``/healthz``: this process answers. ``/readyz``: everything that a request needs does."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from inference_workers.queue.clients import connect
from inference_workers.queue.leases import Leases
from portal.supervisor.guard import NAME
from portal.supervisor.lock import read_state

PATIENCE_S = 2.0
"""How long one check may take before it counts as failed."""

OK = "ok"
log = structlog.get_logger(__name__)
_told: dict[str, str] = {}


@never_cache
async def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: touches neither database nor Redis."""
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@never_cache
async def readyz(request: HttpRequest) -> JsonResponse:
    """200 when database, Redis and a worker with the default model answer, else 503; 503 as well
    from the moment on at which ``manage.py up`` begins to stop.

    ``{"ready": bool, "checks": {"database": "ok", …, "worker": "why it is not"}}``
    """
    names = ("database", "redis", "worker", "supervisor")
    checks_run = (_database, _redis, _worker, _supervisor)
    found = await asyncio.gather(*(_run(check) for check in checks_run))
    checks = dict(zip(names, found, strict=True))
    ready = all(answer == OK for answer in found)
    for name, answer in checks.items():
        _tell(name, answer)
    response = JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503)
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would, on every probe
    return response


def _tell(name: str, answer: str) -> None:
    """Log a check's answer when it changes, not on every probe."""
    if _told.get(name, OK) != answer:
        log.log(logging.INFO if answer == OK else logging.WARNING, "check", name=name, said=answer)
    _told[name] = answer


async def _run(check: Callable[[], str]) -> str:
    """``"ok"`` or a sentence without details, which go to the log: strangers read this."""
    try:
        return await asyncio.wait_for(
            sync_to_async(check, thread_sensitive=False)(), timeout=PATIENCE_S
        )
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except Exception as error:
        log.debug("check_failed", check=check.__name__.strip("_"), error=str(error))
        return "not reachable"


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return OK
    finally:
        connection.close()  # this thread is nobody's: a connection left in it would never close


def _redis() -> str:
    with connect(settings.REDIS_URL, retries=0) as client:
        client.ping()
    return OK


def _worker() -> str:
    model = settings.LLMASOS.default_model
    with connect(settings.REDIS_URL, retries=0) as client:
        workers = [worker for worker in Leases(client).workers() if worker.model == model]
    if any(worker.state == "ready" for worker in workers):
        return OK
    if workers:
        return f"{model} is {workers[0].state}"
    return f"no worker serves {model}"


def _supervisor() -> str:
    stopping = NAME in os.environ and read_state(settings.LLMASOS.data).get("state") == "stopping"
    return "stopping" if stopping else OK
