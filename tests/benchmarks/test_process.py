"""A side in a process of its own: it answers, stands still between questions, and ends cleanly."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers import DRIVER
from benchmarks.process import Process, SideError, SlowError

STEP = 0.02


def echo(step: object = STEP) -> Process:
    return Process("echo", [sys.executable, DRIVER, "echo", str(step)])


def state(pid: int) -> str:
    """The process' state, by the kernel's letter; a signal takes a moment to arrive."""
    for _ in range(200):
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        if found == "T":
            break
        time.sleep(0.01)
    return found


def test_it_times_the_tokens_after_the_first_and_not_the_prompt() -> None:
    with echo() as side:
        # What a library prints on the way is no answer: the echo side prints too.
        took = side.ask("decode", prompts=[[1], [2]], tokens=10)
        assert 10 * STEP * 0.5 < took < 10 * STEP * 3
        assert STEP <= side.ask("prefill", prompt=[1, 2, 3]) < 5 * STEP
        assert side.about["weights"] == "none"


def test_it_stands_still_between_two_questions() -> None:
    with echo() as side:
        assert state(side.pid) == "T"
        side.ask("prefill", prompt=[1])
        assert state(side.pid) == "T"
        pid = side.pid
    assert not Path(f"/proc/{pid}").exists()


def test_what_it_cannot_do_is_an_error_and_not_its_end() -> None:
    with echo() as side:
        with pytest.raises(SideError, match="AttributeError"):
            side.ask("fly")
        assert side.ask("prefill", prompt=[1]) > 0


def test_what_takes_longer_than_it_was_given_is_ended_at_once() -> None:
    with echo(30) as side:
        pid, began = side.pid, time.monotonic()
        with pytest.raises(SlowError, match=r"echo is slower than 0.2 s"):
            side.ask("prefill", within=0.2, prompt=[1])
        assert time.monotonic() - began < 10
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(SideError, match="echo has ended"):
            side.ask("prefill", prompt=[1])


def test_a_side_that_cannot_load_says_why() -> None:
    with pytest.raises(SideError, match="could not convert string to float"), echo("no number"):
        pass


def test_a_side_that_dies_says_its_last_words() -> None:
    script = "import sys; sys.exit('an illegal instruction')"
    command = [sys.executable, "-c", script]
    with pytest.raises(SideError, match=r"exit code 1.*an illegal instruction"):
        Process("vllm", command).__enter__()


def test_a_python_that_is_not_there_is_named() -> None:
    with pytest.raises(SideError, match="/nowhere/python can't be started"):
        Process("vllm", ["/nowhere/python"]).__enter__()
