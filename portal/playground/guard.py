"""Open sockets obey sign-in: whoever signs out, is disabled, leaves a team or loses the key stops
reading.

One loop per process asks the database about all open sockets together, every ``CHECK_S``; a notice
through the channel layer (a sign-out, say) makes it look at once. What it finds closes sockets.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import structlog
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from portal.accounts.models import User
from portal.jobs.selectors import still_visible
from portal.jobs.viewer import SESSION_VISITOR, Viewer
from portal.teams.services import live_keys
from portal.threads import in_thread

CHECK_S = 0.4
GROUP = "signed-in"
logger = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Guarded:
    """An open socket: who opened it, in which session or by which key, what it reads, and how to
    end it."""

    viewer: Viewer
    session_key: str
    watched: Callable[[], set[uuid.UUID]]
    end: Callable[[], Awaitable[None]]
    api_key: uuid.UUID | None = None


class Guard:
    """The open sockets of one event loop."""

    def __init__(self) -> None:
        self._sockets: set[Guarded] = set()
        self._task: asyncio.Task[None] | None = None
        self._look = asyncio.Event()

    def add(self, socket: Guarded) -> None:
        self._sockets.add(socket)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="socket-guard")

    def remove(self, socket: Guarded) -> None:
        self._sockets.discard(socket)

    def look_now(self) -> None:
        self._look.set()

    async def _run(self) -> None:
        while self._sockets:
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            await self._check()

    async def _check(self) -> None:
        asked = [(s, s.viewer, s.session_key, s.api_key, s.watched()) for s in self._sockets]
        try:
            bad = await _find_bad([what[1:] for what in asked])
        except DatabaseError as error:
            logger.warning("sockets_not_checked", error=str(error))
            return
        for index in bad:
            await asked[index][0].end()


Asked = tuple[Viewer, str, uuid.UUID | None, set[uuid.UUID]]


@in_thread
def _find_bad(asked: list[Asked]) -> list[int]:
    """Which of them may not go on, by their place."""
    sessions = _sessions(session for _, session, _, _ in asked)
    users = User.objects.in_bulk([v.user.pk for v, _, _, _ in asked if v.user is not None])
    by_key = {key for _, _, key, _ in asked if key is not None}
    live = live_keys(by_key) if by_key else set()
    followed: dict[Viewer, set[uuid.UUID]] = {}
    for viewer, _, _, jobs in asked:
        followed.setdefault(viewer, set()).update(jobs)
    seen = {viewer: still_visible(viewer, jobs) for viewer, jobs in followed.items() if jobs}
    return [
        index
        for index, (viewer, session, key, jobs) in enumerate(asked)
        if not (_holds(viewer, sessions.get(session), users) if key is None else key in live)
        or (jobs and not jobs <= seen[viewer])
    ]


def _sessions(keys: Iterable[str]) -> dict[str, dict[str, object]]:
    store = SessionStore()
    rows = Session.objects.filter(session_key__in=set(keys), expire_date__gt=timezone.now())
    return {row.session_key: store.decode(row.session_data) for row in rows}


def _holds(viewer: Viewer, session: dict[str, object] | None, users: dict[int, User]) -> bool:
    """Whether the session still is the viewer's, who is still active."""
    if viewer.user is None:
        return not viewer.session or bool(
            session
            and session.get(SESSION_VISITOR) == viewer.session
            and SESSION_KEY not in session
        )
    user = users.get(viewer.user.pk)
    if session is None or user is None or not user.is_active:
        return False
    if str(session.get(SESSION_KEY)) != str(user.pk):
        return False
    proof = str(session.get(HASH_SESSION_KEY, ""))
    return constant_time_compare(proof, user.get_session_auth_hash())


_in_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Guard] = WeakKeyDictionary()


def guard() -> Guard:
    """The running loop's guard."""
    loop = asyncio.get_running_loop()
    found = _in_loop.get(loop)
    if found is None:
        found = _in_loop[loop] = Guard()
    return found
