"""What the supervisor must know from outside: looked at in a thread, so that a slow database or
Redis never keeps it from its children."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import redis
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection

from inference_workers.queue import FairQueue, Leases, connect
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import visible_models
from portal.supervisor import tree
from portal.supervisor.placement import Wanted, unplaceable

LOOK_S = 1.0
READY_LOOK_S = 0.4
UNPLACED_S = 10
"""How long a supervisor's word holds that a model has no room here, if it isn't repeated."""


@dataclass(frozen=True, slots=True)
class View:
    """``models``: prepared and placed; ``busy``: models with a worker that runs something."""

    models: tuple[Wanted, ...] = ()
    busy: frozenset[str] = field(default_factory=frozenset)


class Watch(threading.Thread):
    """``view`` is the last look (``None`` before the first), ``ready`` whether ``/readyz`` said yes
    since the start. Into ``refused`` go models that a worker said it can't load."""

    def __init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self.view: View | None = None
        self.ready = threading.Event()
        self._client = connect(settings.REDIS_URL, retries=0)
        self._queue, self._leases = FairQueue(self._client), Leases(self._client)
        self.refused: set[str] = set()
        self._unplaced: set[str] = set()

    def run(self) -> None:
        next_look = 0.0
        while True:
            if not self.ready.is_set() and answers(f"{local_url()}/readyz"):
                self.ready.set()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_S
                self._look()
            time.sleep(LOOK_S if self.ready.is_set() else READY_LOOK_S)

    def _look(self) -> None:
        try:
            close_old_connections()
            rows = list(visible_models())
        except DatabaseError:
            return  # the portal says it on every page; the last view stands
        finally:
            connection.close()
        try:
            depths = {row.id: self._queue.depth(row.id) for row in rows}
            workers = self._leases.workers()
            busy = frozenset(w.model for w in workers if w.running or w.waiting)
            models = tuple(_wanted(row, depths[row.id]) for row in rows)
            self._say_unplaced(models, {w.model for w in workers if w.state == "ready"})
        except (redis.exceptions.RedisError, OSError):
            models, busy = tuple(_wanted(row, 0) for row in rows), frozenset(row.id for row in rows)
            # unknown: stop nothing
        self.view = View(models, busy)

    def _say_unplaced(self, models: Sequence[Wanted], served: Set[str]) -> None:
        """So that nobody's request waits for a worker that can't come."""
        self.refused &= {model.id for model in models} - served  # or switched off, or made again
        found = {*unplaceable(models, budget=tree.memory_budget()), *self.refused} - served
        if found or self._unplaced:
            self._queue.set_unplaced(found, UNPLACED_S)
        self._unplaced = found


def _wanted(row: CatalogueModel, waiting: int) -> Wanted:
    return Wanted(row.id, row.placement == row.Placement.ALWAYS, row.bytes, waiting)


def local_url() -> str:
    """How this machine itself reaches the portal."""
    ours = settings.LLMASOS
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(ours.host, ours.host)  # noqa: S104
    return f"http://{host}:{ours.port}"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310  (our own address)
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
