"""Child processes that never outlive the tests."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output appended to ``log``. Call it from the main thread: the
    child dies with the thread that started it."""
    with log.open("ab") as file:
        return subprocess.Popen(
            list(command), stdout=file, stderr=file, env=env, preexec_fn=_die_with_parent
        )
