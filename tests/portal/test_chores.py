"""Chores come round again, and one that fails keeps no other from being done."""

from __future__ import annotations

import threading
import time

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from portal import chores
from portal.chores import Chores

calls: list[str] = []
left = 0


@pytest.fixture(autouse=True)
def _clean() -> None:
    calls.clear()


def ordinary() -> None:
    calls.append("ordinary")


def failing() -> bool:
    calls.append("failing")
    raise ValueError("on purpose")


def much() -> bool:
    """Says twice that it left something undone."""
    calls.append("much")
    return calls.count("much") < 3


HERE = __name__


def test_the_houses_chores_can_be_called() -> None:
    for path, seconds in settings.CHORES.items():
        assert callable(import_string(path))
        assert seconds > 0


def test_a_failing_chore_is_said_once_and_the_others_are_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds = Chores({f"{HERE}.failing": 0, f"{HERE}.ordinary": 0})
    for _ in range(3):
        rounds.look()
    assert calls == ["failing", "ordinary"] * 3
    assert sum("chore_failed" in record.getMessage() for record in caplog.records) == 1


def test_what_left_something_undone_goes_on_at_once() -> None:
    rounds = Chores({f"{HERE}.much": 3600})
    assert rounds.look() == chores.AGAIN_S
    rounds.look()
    assert rounds.look() == chores.LOOK_S
    rounds.look()
    assert calls == ["much"] * 3


def test_it_stops_when_told() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=Chores({f"{HERE}.ordinary": 0.01}).run, args=(stop,))
    thread.start()
    time.sleep(0.05)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert calls
