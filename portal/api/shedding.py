"""Overload is refused before anything is looked up.

Who is told that too many wait for a model, and asks for it again with the same key, is told the
same for ``HOLD_S`` more from what is remembered here: no thread, no database, no Redis. That costs
a small part of what the first refusal did, so that a portal of which ten times too much is asked
goes on answering, and has time for those it serves. After that one request goes on to see, while
others are still refused; when it is taken two may go on at once, then three, and so on: a crowd
that is let in together would be refused together, slowly.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.http import HttpRequest

from portal.api.disconnects import Application, Receive, Scope, Send
from portal.metrics import JOBS_REFUSED

HOLD_S = 0.25
"""A slot that becomes free meanwhile takes one of those that wait already."""
FORGET_S = 5.0
"""After so long without a refusal nobody is held up any more, whatever became of those who see."""
OPEN = 16
"""When so many could go on at once, all may."""
LONGEST_BODY = 1 << 16
CALLERS = 1000
CODE = "queue_full"
_FLAG = "llmasos.seen"

Message = MutableMapping[str, Any]
Asked = tuple[bytes, str, str]
"""A key, as it came, a path and a model."""


@dataclass(slots=True)
class Refusal:
    """``room`` is how many may see at once after ``until``, ``seeing`` how many do."""

    until: float
    start: Message
    body: bytes
    room: int = 1
    seeing: int = 0


class Shedding:
    """ASGI middleware for requests with a key; ``clock`` gives seconds."""

    def __init__(
        self, application: Application, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._clock = clock
        self._refused: dict[Asked, Refusal] = {}
        self._latest = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "POST":
            return await self._application(scope, receive, send)
        body, messages = await _read(receive)
        refusal = self._refusal(scope, body)
        if refusal is not None:
            if refusal.until > self._clock() or refusal.seeing >= refusal.room:
                return await _refuse(refusal, send)
            refusal.seeing += 1
            scope[_FLAG] = partial(self._note, refusal, _asked(scope, body))
        watched = self._watch(scope, body, send)
        try:
            return await self._application(scope, _replay(messages, receive), watched)
        finally:
            _seen(scope, taken=False)

    def _note(self, refusal: Refusal, asked: Asked, *, taken: bool) -> None:
        refusal.seeing -= 1
        if taken:
            refusal.room += 1
            if refusal.room >= OPEN and self._refused.get(asked) is refusal:
                del self._refused[asked]

    def _refusal(self, scope: Scope, body: bytes) -> Refusal | None:
        """What the caller was told of late. Nothing is parsed while nobody is refused."""
        if self._refused and self._latest < self._clock() - FORGET_S:
            self._refused.clear()
        return self._refused.get(_asked(scope, body)) if self._refused else None

    def _watch(self, scope: Scope, body: bytes, send: Send) -> Send:
        """``send``, which remembers a refusal that goes through it."""
        started: Message | None = None

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message if message["status"] == 503 else None
                if message["status"] < 300:
                    _seen(scope, taken=True)
            elif started is not None and _code(message.get("body", b"")) == CODE:
                self._remember(_asked(scope, body), started, message["body"])
            await send(message)

        return watched

    def _remember(self, asked: Asked, start: Message, body: bytes) -> None:
        if len(self._refused) >= CALLERS:
            self._refused.clear()
        self._latest = self._clock()
        self._refused[asked] = Refusal(self._latest + HOLD_S, start, body)


def taken(request: HttpRequest) -> None:
    """There is room again for whoever asks as ``request`` does: its jobs are made. Its answer, from
    which that could be told as well, may come much later."""
    _seen(getattr(request, "scope", {}), taken=True)


def _seen(scope: Scope, *, taken: bool) -> None:
    """Once for each that goes on to see."""
    if note := scope.pop(_FLAG, None):
        note(taken=taken)


def _asked(scope: Scope, body: bytes) -> Asked:
    key = dict(scope["headers"]).get(b"authorization", b"")
    return key, scope["path"], str(_field(body, "model"))


async def _read(receive: Receive) -> tuple[bytes, list[Message]]:
    """The request's body, empty where it is too long to be looked at, and its messages."""
    messages: list[Message] = []
    size = 0
    while True:
        messages.append(message := await receive())
        size += len(message.get("body", b""))
        if size > LONGEST_BODY:
            return b"", messages
        if not message.get("more_body"):
            return b"".join(each.get("body", b"") for each in messages), messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replayed() -> Message:
        return next(waiting, None) or await receive()

    return replayed


def _code(body: bytes) -> str:
    error = _field(body, "error")
    return str(error.get("code")) if isinstance(error, dict) else ""


def _field(body: bytes, name: str) -> Any:
    """Of a JSON object; ``None`` of anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value.get(name) if isinstance(value, dict) else None


async def _refuse(refusal: Refusal, send: Send) -> None:
    """The refusal once more, with an id of its own."""
    JOBS_REFUSED.labels(CODE).inc()
    headers = [pair for pair in refusal.start["headers"] if pair[0].lower() != b"x-request-id"]
    headers.append((b"x-request-id", uuid.uuid4().hex.encode()))
    await send({**refusal.start, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})
