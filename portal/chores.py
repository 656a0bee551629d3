"""Work that comes round: apps list it in their ``chores.py``, ``manage.py tasks`` does it.

A chore is a function without arguments that may run anywhere, any number of times, also at once:
each does what is due, by conditional updates, and leaves the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import connection
from django.utils.module_loading import autodiscover_modules

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    name: str
    every_s: float
    run: Callable[[], object]


_chores: list[Chore] = []


def every(seconds: float) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Marks a function in an app's ``chores.py``."""

    def keep(run: Callable[[], object]) -> Callable[[], object]:
        _chores.append(Chore(f"{run.__module__}.{run.__name__}", seconds, run))
        return run

    return keep


def known() -> list[Chore]:
    """All chores of all apps."""
    autodiscover_modules("chores")
    return list(_chores)


def do_chores(stop: threading.Event, *, look_s: float = 5.0) -> None:
    """Run each chore when it is due, until ``stop``; one that fails waits for its next turn."""
    due = {chore: time.monotonic() for chore in known()}
    while not stop.wait(look_s):
        for chore, when in due.items():
            if time.monotonic() < when or stop.is_set():
                continue
            due[chore] = time.monotonic() + chore.every_s
            try:
                chore.run()
            except Exception as error:  # whatever it is, the others must go on
                logger.warning("chore_failed", chore=chore.name, error=str(error))
                connection.close()
    connection.close()
