"""JSON lines for whoever started this process: progress, then one result or one error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from inference_workers.errors import ModelError
from inference_workers.models.manifest import Manifest, summary

INTERVAL_S = 0.1


class Write(Protocol):
    def __call__(self, fraction: float, message: str) -> None: ...


class Report:
    """Takes progress as a fraction and a sentence; hands on what a reader can follow.

    ``part(a, b)`` is a report for one step, whose 0 to 1 is ``a`` to ``b`` of this one.
    """

    def __init__(self, write: Write, start: float = 0.0, end: float = 1.0) -> None:
        self._write, self._start, self._end = write, start, end

    def __call__(self, fraction: float, message: str) -> None:
        inside = min(1.0, max(0.0, fraction))
        self._write(self._start + inside * (self._end - self._start), message)

    def part(self, start: float, end: float) -> Report:
        width = self._end - self._start
        return Report(self._write, self._start + start * width, self._start + end * width)


def silent() -> Report:
    """A report that nobody reads."""
    return Report(lambda fraction, message: None)


def lines(stream: TextIO) -> Report:
    """A report as JSON lines, at most ten a second for one message; fractions never fall."""
    last_message, last_time, highest = "", 0.0, 0.0

    def write(fraction: float, message: str) -> None:
        nonlocal last_message, last_time, highest
        highest = max(highest, round(fraction, 3))
        now = time.monotonic()
        if message != last_message or now - last_time >= INTERVAL_S:
            last_message, last_time = message, now
            emit(stream, {"progress": highest, "message": message})

    return Report(write)


def reporting(work: Callable[[Report], Manifest]) -> int:
    """Run ``work`` with a report on stdout; print its manifest or error. Returns the exit code."""
    out = sys.stdout
    try:
        manifest = work(lines(out))
    except ModelError as error:
        failure(out, error)
        return 1
    emit(out, {"manifest": summary(manifest)})
    return 0


def failure(stream: TextIO, error: ModelError) -> None:
    """Why it did not work, as the last line."""
    emit(stream, {"error": {"code": error.code, "message": error.message}})


def emit(stream: TextIO, value: object) -> None:
    """One JSON line."""
    print(json.dumps(value, ensure_ascii=False), file=stream, flush=True)
