"""How long streams wait for a newcomer's prompt, on machines that exist only as sums."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inference_workers.engine.kv_cache import BlockCache
from inference_workers.engine.pace import BEGINNING, LEAST_TOKENS, LONGEST, PATIENCE, Pace
from inference_workers.engine.request import Request
from inference_workers.engine.scheduler import Scheduler

PROMPT = 1000
Machine = Callable[[int, int, int], float]
"""Seconds of a step of so many streams and tokens of a prompt, of which so many are computed."""


def machine(*, fixed: float = 0.006, stream: float = 0.0018, token: float = 0.0011) -> Machine:
    """About what two cores take for a model of 270 million parameters: attention makes the last
    tokens of a prompt a third dearer than the first."""
    return lambda streams, tokens, known: (
        fixed + stream * streams + tokens * token * (1 + known / 3000)
    )


def decode(pace: Pace, seconds: Machine, streams: int, steps: int = 20) -> None:
    for _ in range(steps):
        pace.took(streams, 0, seconds(streams, 0, 0))


def prefill(pace: Pace, seconds: Machine, streams: int) -> list[float]:
    """What each step takes until a prompt is computed beside ``streams``."""
    took, known = [], 0
    while known < PROMPT:
        tokens = min(max(pace.beside(streams), LEAST_TOKENS), PROMPT - known)
        took.append(seconds(streams, tokens, known))
        pace.took(streams, tokens, took[-1])
        known += tokens
    return took


@pytest.mark.parametrize("streams", [31, 40, 64])
@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_a_step_with_a_prompt_takes_at_most_so_many_times_one_without(
    streams: int, speed: float
) -> None:
    pace = Pace()
    seconds = machine(fixed=0.006 * speed, stream=0.0018 * speed, token=0.0011 * speed)
    decode(pace, seconds, streams)
    prefill(pace, seconds, streams)
    took = prefill(pace, seconds, streams)
    limit = max(LONGEST * seconds(streams, 0, 0), PATIENCE)
    assert max(took) <= 1.1 * limit
    assert sorted(took)[len(took) // 2] >= 0.9 * limit, "the newcomer waits for nothing"


def test_a_newcomers_prompt_takes_less_than_twice_as_long_beside_others() -> None:
    pace, seconds = Pace(), machine()
    alone = sum(prefill(pace, seconds, 0))
    decode(pace, seconds, 31)
    prefill(pace, seconds, 31)
    assert sum(prefill(pace, seconds, 31)) < 2 * alone


def test_few_streams_wait_for_what_nobody_notices() -> None:
    pace, seconds = Pace(), machine()
    decode(pace, seconds, 1)
    prefill(pace, seconds, 1)
    took = prefill(pace, seconds, 1)
    assert max(took) <= 1.1 * PATIENCE
    assert pace.beside(1) > BEGINNING


def test_it_begins_with_a_guess_that_holds_where_it_was_measured() -> None:
    assert Pace().beside(31) == BEGINNING
    first = machine()(31, BEGINNING, 0)
    assert first <= (LONGEST + 0.1) * machine()(31, 0, 0)


def test_one_slow_step_changes_little() -> None:
    pace, seconds = Pace(), machine()
    decode(pace, seconds, 31)
    prefill(pace, seconds, 31)
    before = pace.beside(31)
    pace.took(31, 0, 5.0)
    assert before <= pace.beside(31) <= 1.5 * before
    decode(pace, seconds, 31)
    pace.took(31, before, 5.0)
    assert pace.beside(31) >= before / 1.5


def test_it_learns_that_the_machine_became_slower() -> None:
    pace, seconds = Pace(), machine()
    decode(pace, seconds, 31)
    prefill(pace, seconds, 31)
    slower = machine(fixed=0.018, stream=0.0054, token=0.0044)
    decode(pace, slower, 31)
    prefill(pace, slower, 31)
    assert max(prefill(pace, slower, 31)) <= 1.1 * LONGEST * slower(31, 0, 0)


def test_streams_that_never_decoded_alone_are_judged_by_the_nearest_number() -> None:
    pace, seconds = Pace(), machine()
    decode(pace, seconds, 1)
    decode(pace, seconds, 30)
    prefill(pace, seconds, 30)
    assert pace.beside(32) == pace.beside(30)


def test_the_last_few_tokens_of_a_prompt_say_nothing() -> None:
    pace, seconds = Pace(), machine()
    decode(pace, seconds, 31)
    prefill(pace, seconds, 31)
    before = pace.beside(31)
    pace.took(31, 2, seconds(31, 2, 900) + 0.02)
    assert pace.beside(31) == before


def test_a_prompt_goes_on_by_a_block_where_time_allows_nothing() -> None:
    served = Scheduler(BlockCache(50, 4), slots=8, budget=40, beside=lambda streams: 0)
    for name, length in (("early", 3), ("late", 30)):
        served.add(Request(job=name, choice=0, tokens=[1] * length, prompt=length, own=name))
        plan = served.schedule()
        plan[0].request.computed += plan[0].count
        plan[0].request.tokens.append(1)
    assert [item.count for item in plan] == [1, 4]
