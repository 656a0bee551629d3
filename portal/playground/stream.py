"""One socket's many jobs: watches, acknowledgements, limits.

The server below us buffers without bound for a slow reader, so the client acknowledges and a job's
entries stop ``WINDOW`` after the last acknowledged one. Nothing that a client sends ends the
socket: what is wrong with it is said in an ``error`` event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from inference_workers.contract import Entry
from portal.jobs.errors import JobRefused
from portal.jobs.models import Job
from portal.jobs.reader import SILENT, Notice, events
from portal.jobs.selectors import ajob_for
from portal.jobs.services import cancel_job
from portal.jobs.viewer import Viewer
from portal.threads import in_thread

WINDOW = 256
MAX_WATCHES = 64
MAX_MESSAGE = 4096
MAX_SEQ = 2**53
KINDS = ("watch", "ack", "unwatch", "cancel", "ping")
logger = structlog.get_logger(__name__)
acancel_job = in_thread(cancel_job)
Send = Callable[[str], Awaitable[None]]


class Complaint(Exception):
    """What is wrong with a client's message."""

    def __init__(self, code: str, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.job = code, message, job


@dataclass(slots=True)
class Watch:
    """One job on one socket. ``sent`` and ``acked`` are entry numbers."""

    job: Job
    sent: int
    acked: int
    room: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Multiplexer:
    """Answers one client's messages through ``send`` until ``close``."""

    def __init__(self, viewer: Viewer, send: Send) -> None:
        self.viewer = viewer
        self._send = send
        self._watches: dict[str, Watch] = {}
        self._closed = False

    async def receive(self, text: str | None) -> None:
        """One message from the client, of whatever quality."""
        try:
            await self._handle(_parse(text))
        except Complaint as complaint:
            await self._complain(complaint.job, complaint.code, complaint.message)

    async def _handle(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "ping":
            return await self._say({"type": "pong"})
        if kind not in KINDS:
            raise Complaint("unknown_type", "type is watch, ack, unwatch, cancel or ping.")
        job = _job_id(message)
        if kind == "watch":
            return await self._watch(job, _number(message, "after", job, default=0))
        if kind == "ack":
            return self._ack(job, _number(message, "seq", job))
        if kind == "unwatch":
            return await self._unwatch(job)
        return await self._cancel(job)

    async def _watch(self, job_id: str, after: int) -> None:
        """From ``after`` on; watching a job again starts again from there."""
        await self._unwatch(job_id)
        if len(self._watches) >= MAX_WATCHES:
            raise Complaint(
                "too_many_watches", f"One socket follows {MAX_WATCHES} jobs. Unwatch one.", job_id
            )
        job = await self._find(job_id)
        if self._closed:
            return
        watch = Watch(job=job, sent=after, acked=after)
        self._watches[job_id] = watch
        watch.task = asyncio.create_task(self._pump(job_id, watch), name=f"watch-{job_id}")

    def _ack(self, job_id: str, seq: int) -> None:
        watch = self._watches.get(job_id)
        if watch is None:
            return  # its end and this acknowledgement crossed
        if seq > watch.sent:
            raise Complaint("bad_ack", f"Entry {seq} has not been sent yet.", job_id)
        watch.acked = max(watch.acked, seq)
        watch.room.set()

    async def _unwatch(self, job_id: str) -> None:
        watch = self._watches.pop(job_id, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()
            await asyncio.wait([watch.task])

    async def _cancel(self, job_id: str) -> None:
        job = await self._find(job_id)
        try:
            await acancel_job(job=job)
        except JobRefused as refusal:
            raise Complaint(refusal.code, refusal.message, job_id) from None

    async def _find(self, job_id: str) -> Job:
        try:
            return await ajob_for(self.viewer, job_id)
        except Job.DoesNotExist:
            raise Complaint(
                "not_found", "There is no such job, or it is somebody else's.", job_id
            ) from None

    async def _pump(self, job_id: str, watch: Watch) -> None:
        """Send the job's entries as far as the window allows, until its end."""
        try:
            async with aclosing(events(watch.job, watch.sent)) as items:
                async for item in items:
                    if isinstance(item, Notice):
                        if item != SILENT:  # the server below us pings silent sockets
                            await self._say(_notice(job_id, item))
                        continue
                    await self._make_room(watch)
                    watch.sent = item.seq
                    await self._say_raw(_entry(job_id, item))
        except Exception:
            logger.exception("watch_failed", job=job_id)
            message = "Reading this job failed. Watch it again in a moment."
            await self._complain(job_id, "internal", message)
        finally:
            if self._watches.get(job_id) is watch and not self._closed:
                del self._watches[job_id]

    async def _make_room(self, watch: Watch) -> None:
        while watch.sent - watch.acked >= WINDOW:
            watch.room.clear()
            await watch.room.wait()

    async def _complain(self, job: str | None, code: str, message: str) -> None:
        await self._say({"type": "error", "job": job, "code": code, "message": message})

    async def _say(self, message: dict[str, Any]) -> None:
        await self._say_raw(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    async def _say_raw(self, text: str) -> None:
        if not self._closed:
            await self._send(text)

    def watched(self) -> set[UUID]:
        """The jobs that are being followed."""
        return {watch.job.pk for watch in self._watches.values()}

    async def close(self) -> None:
        """From here on nothing is sent."""
        self._closed = True
        for job_id in list(self._watches):
            await self._unwatch(job_id)


def _parse(text: str | None) -> dict[str, Any]:
    if text is None:
        raise Complaint("bad_message", "Send text, not bytes.")
    if len(text) > MAX_MESSAGE:
        raise Complaint("too_large", f"A message has at most {MAX_MESSAGE} characters.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Complaint("bad_json", "The message is not valid JSON.") from None
    if not isinstance(message, dict):
        raise Complaint("bad_message", "A message is a JSON object with a type.")
    return message


def _job_id(message: dict[str, Any]) -> str:
    given = message.get("job")
    try:
        if isinstance(given, str) and len(given) <= 40:
            return UUID(given).hex
    except ValueError:
        pass
    raise Complaint("bad_job", "job is a job's id.")


def _number(message: dict[str, Any], name: str, job: str, *, default: int | None = None) -> int:
    value = message.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQ:
        raise Complaint("bad_number", f"{name} is a whole number from 0 to 2^53.", job)
    return value


def _entry(job_id: str, entry: Entry) -> str:
    """Written by hand, because the event is JSON already."""
    return f'{{"type":"entry","job":"{job_id}","seq":{entry.seq},"event":{entry.text}}}'


def _notice(job_id: str, notice: Notice) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "notice", "job": job_id, "state": notice.state}
    if notice.position is not None:
        message["position"] = notice.position
    if notice.fraction is not None:
        message["fraction"] = round(notice.fraction, 3)
    return message
