"""Sides are measured in turn, and their figures said truly."""

from __future__ import annotations

import random

from benchmarks.turns import Sample, in_turn, percentile


def test_every_second_round_runs_in_the_opposite_order() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return 1.0

    in_turn({name: lambda name=name: side(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "abc" + "cba" + "abc"


def test_a_machine_that_slows_down_does_not_favour_a_side() -> None:
    clock = iter(range(1, 9))

    def rate() -> float:
        return 1 / next(clock)  # each measurement finds the machine slower than the last

    found = in_turn({"first": rate, "second": rate}, 4)
    total = {name: sum(1 / value for value in sample.values) for name, sample in found.items()}
    assert total["first"] == total["second"]


def test_the_median_does_not_hear_one_disturbed_round() -> None:
    assert Sample((10.0, 11.0, 500.0, 9.0, 10.5)).median == 10.5


def test_a_percentile_is_one_of_the_values_and_as_many_lie_at_or_below() -> None:
    rng = random.Random(3)
    values = [rng.random() for _ in range(1000)]
    for share in (0.5, 0.9, 0.99):
        found = percentile(values, share)
        assert found in values
        assert sum(value <= found for value in values) == share * 1000


def test_three_slow_gaps_in_a_hundred_are_the_99th_percentile() -> None:
    assert percentile([0.01] * 97 + [0.5] * 3, 0.99) == 0.5
    assert percentile([0.01] * 97 + [0.5] * 3, 0.5) == 0.01
