"""One child process: spawned so that it can't outlive us, its output followed, its end bounded."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from portal.supervisor.guard import NAME
from portal.supervisor.lives import Life
from portal.supervisor.said import worth_saying

LOG_BYTES = 10 << 20
"""A log file that grows beyond this becomes ``….log.1``, and the one before it goes."""

TAIL_LINES = 5
QUIET_S = 30.0
"""What a child repeats within this time is not shown again; its log has it."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run. ``show_output``: its standard output is for the console too (e-mails)."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 5.0
    worker_of: str = ""
    show_output: bool = False


class Child:
    """Call everything from the main thread: a child dies with the thread that started it."""

    def __init__(self, spec: Spec, *, mark: str, logs: Path, cwd: Path, say: Say) -> None:
        self.spec, self.life = spec, Life()
        self.starts = 0
        self.kill_at = float("inf")
        self.process: subprocess.Popen[bytes] | None = None
        self._mark, self._cwd, self._say = mark, cwd, say
        self.log = LogFile(logs / f"{spec.name}.log")
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._rests: dict[int, bytes] = {}
        self._told: dict[str, float] = {}

    def start(self) -> None:
        """Raises ``OSError`` when it can't be started."""
        parent = os.getpid()

        def before_exec() -> None:
            die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:  # we were gone before the line above
                os._exit(1)

        self.tail.clear()
        self.log.write(f"--- {time.strftime('%F %T')} start: {' '.join(self.spec.command)}\n")
        self.process = subprocess.Popen(  # noqa: S603  (our own programs; never a shell)
            self.spec.command,
            cwd=self._cwd,
            env={**os.environ, **self.spec.environment, NAME: self._mark, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # the console's Ctrl-C is for us; its group is ours to end
            preexec_fn=before_exec,
        )
        for stream in self.streams:
            os.set_blocking(stream.fileno(), False)
        self.starts += 1
        self.life.started(time.monotonic())

    @property
    def streams(self) -> list[IO[bytes]]:
        process = self.process
        return [stream for stream in (process.stdout, process.stderr) if stream] if process else []

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def read(self, stream: IO[bytes]) -> bool:
        """Take what it has said; ``False`` at the end of the stream."""
        try:
            chunk = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return True
        except (OSError, ValueError):
            return False
        assert self.process is not None
        spoken = self.spec.show_output and stream is self.process.stdout
        number = stream.fileno()
        *lines, rest = (self._rests.get(number, b"") + chunk).split(b"\n")
        self._rests[number] = rest[-65536:]
        if not chunk and rest:
            lines, self._rests[number] = [rest], b""
        for line in lines:
            self._take(line.decode(errors="replace").rstrip("\r"), spoken)
        return bool(chunk)

    def _take(self, line: str, spoken: bool) -> None:
        self.log.write(line + "\n")
        if line.strip():
            self.tail.append(line)
        if spoken:
            self._say(line)
        elif (shown := worth_saying(line)) and self._news(shown):
            self._say(f"{self.spec.name}: {shown}")

    def _news(self, text: str) -> bool:
        """Whether it was not said a moment ago, but for its numbers."""
        gist, now = re.sub(r"[0-9a-f]*\d[0-9a-f]*", "", text), time.monotonic()
        told = self._told.get(gist, 0.0)
        if len(self._told) > 200:
            self._told.clear()
        self._told[gist] = now
        return now - told > QUIET_S

    def ended(self) -> int | None:
        """Its exit code once it is gone (negative: the signal); what it said last is taken."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        for stream in self.streams:
            for _ in range(64):  # a grandchild may hold the other end for ever
                before = self.log.written
                if not self.read(stream) or self.log.written == before:
                    break
            stream.close()
        self.end_group()
        self._rests.clear()
        self.process, self.kill_at = None, float("inf")
        return code

    def stop(self, now: float) -> None:
        """Ask it to end; ``overdue`` says when it has had its time."""
        self.life.stop()
        if self.process and self.kill_at == float("inf"):
            self.kill_at = now + self.spec.stop_seconds
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    def overdue(self, now: float) -> bool:
        return self.process is not None and now >= self.kill_at

    def end_group(self) -> None:
        """Kill it and whatever it started in its group."""
        if self.process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def die_with_parent(number: signal.Signals) -> None:
    """Have the system send us ``number`` when our parent ends. Linux; elsewhere nothing."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)


class LogFile:
    """Appends lines; when it is full, it is put aside once and begun anew."""

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self.path, self._limit = path, limit
        self._file = path.open("a", encoding="utf-8", errors="replace")
        self.written = 0
        self._broken = False

    def write(self, text: str) -> None:
        """Never raises: a full disk must not end what we supervise."""
        self.written += 1
        try:
            self._file.write(text)
            self._file.flush()
            if self._file.tell() > self._limit:
                self._file.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._file = self.path.open("a", encoding="utf-8", errors="replace")
        except OSError as error:
            if not self._broken:
                sys.stderr.write(f"{self.path} can't be written: {error.strerror}\n")
            self._broken = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def describe_end(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
