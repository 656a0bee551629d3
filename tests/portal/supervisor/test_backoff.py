"""A child that ends is started again, at once the first time and ever more slowly after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from portal.supervisor.lives import (
    EXIT_REFUSED,
    HEALTHY_AFTER_S,
    LONGEST_DELAY_S,
    REFUSED_DELAY_S,
    Life,
    backoff,
)


def test_the_first_crash_costs_no_wait_and_the_next_ones_double() -> None:
    assert [backoff(n) for n in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


@given(st.integers(0, 10**9))
def test_the_wait_is_bounded(crashes: int) -> None:
    assert 0 <= backoff(crashes) <= LONGEST_DELAY_S


def test_a_child_that_ran_well_for_a_while_starts_anew_at_once() -> None:
    life = Life()
    for now in (0.0, 10.0, 20.0):
        life.started(now)
        life.ended(1, now + 1)
    assert life.due > 21
    life.started(100.0)
    assert life.ended(-9, 100.0 + HEALTHY_AFTER_S) == 0


def test_a_worker_that_refuses_its_settings_is_not_tried_soon() -> None:
    life = Life()
    life.started(0.0)
    assert life.ended(EXIT_REFUSED, 1.0) == REFUSED_DELAY_S
    assert not life.wants_start(30.0)
    assert life.wants_start(1.0 + REFUSED_DELAY_S)


def test_a_child_that_was_told_to_stop_stays_away() -> None:
    life = Life()
    life.started(0.0)
    life.stop()
    assert life.ended(0, 1.0) is None
    assert not life.wants_start(1e9)


def test_one_that_waits_for_its_next_start_can_be_told_to_stay_away() -> None:
    life = Life()
    life.started(0.0)
    life.ended(1, 1.0)
    life.stop()
    assert not life.wants_start(1e9)
