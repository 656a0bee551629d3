"""What comes round: each chore in its time, and one that fails stops no other."""

from __future__ import annotations

import threading

import pytest

from portal import chores


def test_each_runs_in_its_time_and_a_failing_one_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    stop = threading.Event()

    def fail() -> None:
        ran.append("fail")
        raise RuntimeError("no")

    def often() -> None:
        ran.append("often")
        if ran.count("often") == 3:
            stop.set()

    def seldom() -> None:
        ran.append("seldom")

    listed = [
        chores.Chore("fail", 0, fail),
        chores.Chore("seldom", 3600, seldom),
        chores.Chore("often", 0, often),
    ]
    monkeypatch.setattr(chores, "_chores", listed)
    monkeypatch.setattr(chores, "connection", Connection())
    chores.do_chores(stop, look_s=0.001)
    assert (ran.count("fail"), ran.count("seldom"), ran.count("often")) == (3, 1, 3)


class Connection:
    def close(self) -> None:
        pass
