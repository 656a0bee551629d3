"""A key that is revoked, or expires, ends what it began: its requests and streams stop within a
second, and so does the work behind them.

One loop per process asks the database about the keys of all open requests together. What it finds
cancels the request's task, as a caller's leaving does; the answer then says why.
"""

from __future__ import annotations

import asyncio
import json
import uuid
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import structlog
from django.db import DatabaseError
from django.http import HttpRequest

from portal.api.disconnects import marker
from portal.api.errors import ApiError
from portal.teams.keys import live_keys
from portal.teams.models import ApiKey
from portal.threads import in_thread

CHECK_S = 0.4
_ATTRIBUTE = "llmasos_watch"
logger = structlog.get_logger(__name__)
alive = in_thread(live_keys)


@dataclass(eq=False, slots=True)
class Watch:
    """An open request. ``at_work``: its task waits for us, and not for the caller to read.

    It holds on to neither the request nor its task, which hold on to it: whoever is dropped has to
    be gone at once, and not when circles are looked for.
    """

    key_id: uuid.UUID
    mark_gone: Callable[[], None]
    task: Callable[[], asyncio.Task[object] | None]
    at_work: bool = True
    ended: bool = False

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.mark_gone()
            task = self.task()
            if self.at_work and task is not None:
                task.cancel()

    def caught(self) -> bool:
        """Whether a cancellation that was just caught is ours; then it is over with."""
        task = self.task()
        if self.ended and task is not None:
            task.uncancel()
        return self.ended


def _this_task() -> Callable[[], asyncio.Task[object] | None]:
    task = asyncio.current_task()
    assert task is not None, "requests are answered in tasks"
    return weakref.ref(task)


class Guard:
    """The open requests of one event loop."""

    def __init__(self) -> None:
        self._open: set[Watch] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, watch: Watch) -> None:
        self._open.add(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="key-guard")

    def remove(self, watch: Watch) -> None:
        self._open.discard(watch)

    async def _run(self) -> None:
        while self._open:
            await asyncio.sleep(CHECK_S)
            asked = list(self._open)
            try:
                living = await alive({watch.key_id for watch in asked})
            except DatabaseError as error:
                logger.warning("keys_not_checked", error=str(error))
                continue
            for watch in asked:
                if watch.key_id not in living:
                    watch.end()


_in_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Guard] = WeakKeyDictionary()


def _guard() -> Guard:
    return _in_loop.setdefault(asyncio.get_running_loop(), Guard())


def watch(request: HttpRequest, key: ApiKey) -> None:
    """From here until ``release``, the request ends with its key."""
    made = Watch(key.pk, marker(request), _this_task())
    setattr(request, _ATTRIBUTE, made)
    _guard().add(made)


def watch_of(request: HttpRequest) -> Watch | None:
    found: Watch | None = getattr(request, _ATTRIBUTE, None)
    return found


def release(request: HttpRequest) -> None:
    found = watch_of(request)
    if found is not None:
        _guard().remove(found)
        delattr(request, _ATTRIBUTE)


def revoked() -> ApiError:
    return ApiError(
        401,
        "This API key was revoked or has expired, and what it began has been stopped.",
        code="invalid_api_key",
    )


async def guarded(content: AsyncIterator[bytes], watch: Watch) -> AsyncIterator[bytes]:
    """``content`` until the key ends, and then one event that says so. Costs nothing per part."""
    watch.task = _this_task()
    _guard().add(watch)
    try:
        while True:
            watch.at_work = True
            try:
                part = None if watch.ended else await anext(content, None)
            except asyncio.CancelledError:
                if not watch.caught():
                    raise
            if watch.ended:
                body = json.dumps(revoked().body(), separators=(",", ":"))
                yield f"data: {body}\n\n".encode()
                return
            if part is None:
                return
            watch.at_work = False
            yield part
    finally:
        _guard().remove(watch)
        close = getattr(content, "aclose", None)
        if close is not None:
            await close()
