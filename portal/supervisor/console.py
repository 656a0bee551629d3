"""What a person at the console sees: one line for each thing, progress in place."""

from __future__ import annotations

import sys
from typing import TextIO


class Console:
    """``step`` opens a line, ``progress`` moves it, ``done`` closes it, ``say`` is a line alone."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._open = ""
        self._shown = -1

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody looks any more; what runs goes on
            return

    def say(self, text: str) -> None:
        if self._open and self._live:
            self._write("\r\x1b[K")
        self._write(f"{text}\n")
        if self._open and self._live:
            self._write(f"  {self._open} …")

    def step(self, what: str) -> None:
        self._open, self._shown = what, -1
        if self._live:
            self._write(f"  {what} …")

    def progress(self, fraction: float, message: str) -> None:
        percent = int(fraction * 100)
        if self._live:
            self._write(f"\r\x1b[K  {self._open} … {percent} % {message}")
        elif percent // 10 != self._shown // 10:
            self._write(f"  {self._open} … {percent} % {message}\n")
        self._shown = percent

    def done(self, result: str) -> None:
        start = "\r\x1b[K" if self._live else ""
        self._write(f"{start}  {self._open}: {result}\n")
        self._open = ""
