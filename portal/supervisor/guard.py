"""Ends what a killed supervisor leaves behind. Run as a file by the supervisor: ``guard.py MARK``.

The supervisor holds the other end of our standard input. When that closes, however the supervisor
went, every process that carries ``LLMASOS_UP=MARK`` in its environment is killed. Children die with
the supervisor by PDEATHSIG already; this finds their children as well, whatever group or session
they moved to. Standard library only: it starts in a few milliseconds and stays small.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

NAME = "LLMASOS_UP"


def marked(mark: str) -> list[int]:
    """Pids of our processes, other than this one, that carry the mark. Linux; elsewhere none."""
    wanted = f"{NAME}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone, or somebody else's
            continue
        if wanted in environment.split(b"\0") and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def sweep(mark: str, *, patience: float = 5.0) -> int:
    """Kill them all, also those that are born meanwhile; answers how many there were."""
    killed: set[int] = set()
    give_up = time.monotonic() + patience
    while (alive := marked(mark)) and time.monotonic() < give_up:
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(pid)
        time.sleep(0.02)
    return len(killed)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    sweep(sys.argv[1])


if __name__ == "__main__":
    main()
