"""Job logs: one Redis Stream per job, its entries numbered from 1 without gaps.

A stream's id is ``<seq>-0``; field ``p`` is the writer's epoch, ``t`` the time on Redis' clock
(ms), ``e`` the event's JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import redis

from inference_workers.contract import (
    TERMINAL_TYPES,
    AnyEvent,
    Delta,
    Embedded,
    Entry,
    write_event,
)
from inference_workers.queue.clients import AsyncRedis
from inference_workers.queue.fair import FORGET_SECONDS
from inference_workers.queue.keys import Keys
from inference_workers.queue.scripts import Argument, run, texts

__all__ = ["AnyEvent", "Append", "AppendResult", "JobLog", "Reason", "decode", "encode"]
Reason = Literal["", "unknown", "fenced", "ended", "gap"]


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one job, the first of which is number ``first_seq``.

    ``encoded`` may carry what ``encode`` made of ``events``, so that resending costs nothing.
    """

    job_id: str
    epoch: int
    first_seq: int
    events: Sequence[AnyEvent] = ()
    encoded: Sequence[tuple[str, str, int]] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of one ``Append``.

    ``last_seq`` is the log's last number. ``cancelled``: somebody wants the job stopped. When not
    ``ok``, ``reason`` is one of: ``gap``, send again from ``last_seq + 1``; ``fenced``, the job is
    another's now; ``ended``, its log has its terminal entry; ``unknown``, Redis lost or forgot it.
    ``proved``: it was a suspect and made progress, so its worker may claim again.
    """

    ok: bool
    last_seq: int
    cancelled: bool
    reason: Reason
    proved: bool = False


def encode(event: AnyEvent) -> tuple[str, str, int]:
    """``(JSON, kind, tokens)`` as append.lua takes them."""
    if isinstance(event, Delta | Embedded):
        return write_event(event), "d", len(event.token_ids) if isinstance(event, Delta) else 0
    return write_event(event), "t" if event.type in TERMINAL_TYPES else "s", 0


def decode(stream_id: str, fields: Mapping[str, str]) -> Entry:
    """An entry from the stream's id and fields, which ``XREAD`` gives too."""
    seq = int(stream_id.partition("-")[0])
    at = int(fields.get("t", 0)) / 1000
    return Entry(seq=seq, epoch=int(fields["p"]), at=at, text=fields["e"])


class JobLog:
    """Writes and reads logs. The async twins need ``aredis``, a client of the calling loop."""

    def __init__(
        self,
        redis: redis.Redis | None,
        keys: Keys | None = None,
        *,
        aredis: AsyncRedis | None = None,
    ) -> None:
        self._redis = redis
        self._aredis = aredis
        self.keys = keys or Keys()

    @property
    def _sync(self) -> redis.Redis:
        if self._redis is None:
            raise RuntimeError("this log was made without a sync client: call its async methods")
        return self._redis

    @property
    def _async(self) -> AsyncRedis:
        if self._aredis is None:
            raise RuntimeError("this log was made without an async client: pass aredis")
        return self._aredis

    def append(self, batch: Sequence[Append], *, worker: str = "") -> list[AppendResult]:
        """Append to many logs in one round trip, each by itself; answers in the batch's order.

        ``worker`` is checked beside the epoch; workers always pass it. Sending an entry twice is
        harmless. Generated tokens are charged to the team here.
        """
        if not batch:
            return []
        args: list[Argument] = [self.keys.prefix, worker]
        for item in batch:
            encoded = item.encoded or [encode(event) for event in item.events]
            args += (item.job_id, item.epoch, item.first_seq, len(encoded))
            for event in encoded:
                args += event
        return [
            AppendResult(bool(ok), int(seq), bool(cancelled), reason, any(proved))
            for ok, seq, cancelled, reason, *proved in run(self._sync, "append", *args)
        ]

    def cancels(self, worker: str) -> frozenset[str]:
        """The jobs that ``worker`` holds and that somebody wants stopped."""
        return frozenset(
            texts(cast("set[str]", self._sync.smembers(self.keys.worker_cancels(worker))))
        )

    def read(self, job_id: str, after: int = 0, count: int = 1000) -> list[Entry]:
        """Entries with a ``seq`` above ``after``, at most ``count``."""
        found: Any = self._sync.xrange(self.keys.log(job_id), min=f"{after + 1}-0", count=count)
        return [decode(stream_id, fields) for stream_id, fields in found]

    async def aread(self, job_id: str, after: int = 0, count: int = 1000) -> list[Entry]:
        found: Any = await self._async.xrange(
            self.keys.log(job_id), min=f"{after + 1}-0", count=count
        )
        return [decode(stream_id, fields) for stream_id, fields in found]

    async def aread_many(
        self, cursors: Mapping[str, int], *, block_ms: int | None = None, count: int = 256
    ) -> dict[str, list[Entry]]:
        """New entries of many jobs in one read: ``{job id: after}`` to ``{job id: entries}``.

        Waits up to ``block_ms`` for the first entry (``None``: doesn't wait), which needs a client
        made with ``blocking=True``. Jobs without news are left out.
        """
        if not cursors:
            return {}
        names = {self.keys.log(job_id): job_id for job_id in cursors}
        streams: Any = {name: f"{cursors[job_id]}-0" for name, job_id in names.items()}
        found: Any = await self._async.xread(streams, count=count, block=block_ms)
        pairs = found.items() if isinstance(found, dict) else found or ()
        return {
            names[name]: [decode(stream_id, fields) for stream_id, fields in entries]
            for name, entries in pairs
        }

    def ended(self, limit: int = 100) -> list[str]:
        """Jobs whose terminal entry is logged and not yet recorded, the oldest first."""
        return texts(cast("list[str]", self._sync.zrange(self.keys.ended, 0, limit - 1)))

    def wait_ended(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for a job to end; ``True`` if one did since the last call.

        Several may have ended, and a notice can be lost: sweep ``ended`` in any case. Waiting 5
        seconds or more needs a client made with ``blocking=True``.
        """
        return self._sync.blpop([self.keys.ended_notice], timeout=timeout) is not None

    def recorded(self, job_id: str, ttl: int = FORGET_SECONDS) -> bool:
        """The row has the job's end: log and payload may go, the log after ``ttl`` seconds.

        ``False``: its end isn't logged (any more), so nothing was dropped."""
        return bool(run(self._sync, "forget", self.keys.prefix, job_id, ttl, 1))
