"""``manage.py up`` as a person runs it: a supervisor and children in a folder of their own.

    with Up() as up:
        up.wait_ready()
        os.kill(up.child("worker-echo"), signal.SIGKILL)

The model is ``echo``, which needs no torch. The supervisor ends with the test process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.environment import die_with_parent
from tests.running import REPOSITORY, _free_port, wait_for

STARTS_WITHIN = 240.0


class Up:
    """``environment`` adds to the settings or replaces them; ``folder`` is kept when given."""

    def __init__(
        self, *, step: float = 0.005, folder: Path | None = None, **environment: str
    ) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="llm-up-", dir="/tmp"))
        self._keep = folder is not None
        self.data = self.folder / "data"
        self.port = int(environment.pop("PORT", 0) or _free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environment = kept | {
            "DATA": str(self.data),
            "PORT": str(self.port),
            "DEFAULT_MODEL": "echo",
            "EMBEDDING_MODEL": "",
            "LLMASOS_ECHO_STEP_S": str(step),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _said(self) -> Path:
        return self.folder / f"console-{self.port}.txt"

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    def start(self) -> None:
        with self._said.open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the supervisor ended:\n{self.said[-4000:]}")
            return self.ready() and "Ctrl-C stops" in self.said

        if not wait_for(ready, STARTS_WITHIN, every=0.1):
            raise RuntimeError(f"not ready after {STARTS_WITHIN:.0f} s:\n{self.said[-4000:]}")

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor notes about itself."""
        try:
            found: dict[str, Any] = json.loads((self.data / "up.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def child(self, name: str) -> int:
        """The child's pid."""
        return int(self.state["children"][name])

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 40.0) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def operator_link(self) -> str:
        found = re.search(r"http://\S+/operator/\S+", self.said)
        assert found, self.said
        return found[0]

    def manage(self, *arguments: str, given: str = "") -> str:
        """One of the house's commands, in this installation; what it prints."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def ours(self) -> set[int]:
        """Every living process whose environment names our data folder, the supervisor too."""
        wanted, found = f"DATA={self.data}".encode(), set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                marked = wanted in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state != "Z":
                found.add(int(entry.name))
        return found

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)
