"""When a key was used last: written behind the request's back, once a minute for each key."""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog
from django.db import DatabaseError

from portal.teams.keys import LAST_USE_PRECISION, is_use_worth_noting, note_use
from portal.teams.models import ApiKey
from portal.threads import in_thread

REMEMBERED = 10_000
logger = structlog.get_logger(__name__)
_noted: dict[uuid.UUID, float] = {}
_writing: set[asyncio.Task[None]] = set()


def note(key: ApiKey) -> None:
    """Returns at once. A burst of calls with one key writes once."""
    now, minute = time.monotonic(), LAST_USE_PRECISION.total_seconds()
    if not is_use_worth_noting(key) or _noted.get(key.pk, -minute) > now - minute:
        return
    if len(_noted) >= REMEMBERED:
        _noted.clear()
    _noted[key.pk] = now
    task = asyncio.get_running_loop().create_task(_write(key))
    _writing.add(task)
    task.add_done_callback(_writing.discard)


async def _write(key: ApiKey) -> None:
    try:
        await in_thread(note_use)(key=key)
    except DatabaseError as error:  # the next minute's use will be noted
        logger.warning("last_use_not_noted", key=key.prefix, error=str(error))
