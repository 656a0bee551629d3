"""A side of the comparison as its parent sees it: a process that is asked and answers.

    with Process("llamacpp", [python, driver, "llamacpp", file]) as side:
        side.ask("decode", prompts=prompts, tokens=48)

Between two questions it is stopped (SIGSTOP), with all that it started: threads that spin while
they wait for work would otherwise slow the side whose turn it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.environment import die_with_parent

LOADED_WITHIN = 300.0
ANSWERED_WITHIN = 300.0


class SideError(Exception):
    """A side can't do what it was asked; the message says why."""


class SlowError(SideError):
    """A side took longer than it was given, and was ended."""


class Process:
    """Started by ``with``; ``about`` is what it said of itself when it was ready.

    Raises:
        SlowError: it takes longer than ``LOADED_WITHIN`` to load, or to answer than it was given
            (seconds). It is ended: what it goes on with would disturb the others.
        SideError: it ends, or answers with an error.
    """

    def __init__(
        self, name: str, command: Sequence[str | Path], environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.about: dict[str, Any] = {}
        self._command = [str(part) for part in command]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=self._environment,
                start_new_session=True,  # so that its children stop and end with it
                preexec_fn=die_with_parent,
            )
            self.about = self._answer(LOADED_WITHIN, "ready")
        except OSError as error:
            raise SideError(f"{self._command[0]} can't be started ({error.strerror})") from error
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask(self, do: str, *, within: float = ANSWERED_WITHIN, **arguments: Any) -> Any:
        """The value of one command, which may take ``within`` seconds."""
        if self._process is None:
            raise SideError(f"{self.name} has ended")
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer(within, "value")
        except BrokenPipeError:
            raise self._gone() from None
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it and its children."""
        process, self._process = self._process, None
        if process is not None:
            for number in (signal.SIGKILL, signal.SIGCONT):
                _to_group(process, number)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._said.close()

    def _answer(self, within: float, key: str) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(within):
                self.close()
                raise SlowError(f"{self.name} is slower than {within:.3g} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        message = json.loads(line)
        if "error" in message:
            raise SideError(message["error"])
        return message[key]

    def _gone(self) -> SideError:
        assert self._process is not None
        code = self._process.wait()
        self._said.seek(0)
        words = self._said.read().decode(errors="replace").split()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return SideError(
            f"{self.name} ended ({how}): {' '.join(words)[-400:] or 'it said nothing'}"
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            _to_group(self._process, number)


def _to_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
