"""One supervisor for one data folder: a lock that dies with its holder, and a note of who it is."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class AlreadyRunning(Exception):
    """``state`` is what the other one noted: pid, url, children; empty if it has noted nothing."""

    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__(f"LLMasOS is running already: pid {state.get('pid', 'unknown')}")
        self.state = state


class Lock:
    """``with Lock(data) as lock:`` holds it; ``lock.note(…)`` writes ``up.json``."""

    def __init__(self, data: Path) -> None:
        self._path, self._state = data / "up.lock", data / "up.json"
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Raises ``AlreadyRunning`` or ``OSError``."""
        # Not inherited by children: the lock must be free the moment that this process is gone.
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AlreadyRunning(read_state(self._state.parent)) from None
        self._state.unlink(missing_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._state.unlink(missing_ok=True)
        os.close(self._descriptor)

    def note(self, state: dict[str, Any]) -> None:
        """Say who runs here; readers see the old note or the new one, never half of one."""
        draft = self._state.with_suffix(".draft")
        draft.write_text(json.dumps(state))
        draft.replace(self._state)


def read_state(data: Path) -> dict[str, Any]:
    """The note of the supervisor of ``data``; empty when there is none."""
    try:
        state = json.loads((data / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
