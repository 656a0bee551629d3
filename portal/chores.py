"""Small work that comes round again, in the portal's tasks process: ``settings.CHORES``.

A chore is a function without arguments that does a bounded piece of work and may be called by
several processes at once. It is called again after its pause, or at once when it says (with a true
answer) that it left some undone. One that fails is said once and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog
from django.db import DatabaseError, connections
from django.utils.module_loading import import_string

LOOK_S = 0.5
AGAIN_S = 0.05
logger = structlog.get_logger(__name__)


class Chores:
    """``every`` maps a chore's dotted path to the seconds between two calls."""

    def __init__(self, every: Mapping[str, float]) -> None:
        self._every = dict(every)
        self._chores: dict[str, Callable[[], object]] = {p: import_string(p) for p in every}
        self._due = dict.fromkeys(every, 0.0)
        self._troubled: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set."""
        while not stop.wait(self.look()):
            pass
        connections.close_all()

    def look(self) -> float:
        """Do what is due; how many seconds to wait before looking again."""
        more = False
        for path in self._every:
            if self._due[path] <= time.monotonic():
                undone = self._do(path)
                more |= undone
                self._due[path] = time.monotonic() + (0 if undone else self._every[path])
        return AGAIN_S if more else LOOK_S

    def _do(self, path: str) -> bool:
        try:
            undone = bool(self._chores[path]())
        except Exception as error:  # one chore's trouble must not keep the others from being done
            if path not in self._troubled:
                known = isinstance(error, DatabaseError | OSError)
                logger.warning("chore_failed", chore=path, error=str(error), exc_info=not known)
            self._troubled.add(path)
            connections.close_all()
            return False
        self._troubled.discard(path)
        return undone
