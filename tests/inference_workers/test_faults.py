"""Short doses of the faults; ``python -m tests.faults --full`` gives the full ones."""

from __future__ import annotations

import random
import secrets
from functools import partial

import pytest

from tests.faults.fairness import greedy_team
from tests.faults.guided import killed_inside_json
from tests.faults.house import a_house
from tests.faults.redis_loss import flushed_redis, killed_redis
from tests.faults.report import Row, tokens_of
from tests.faults.small_model import explains, small_llama
from tests.faults.stop import cancelled_jobs
from tests.faults.worker_death import (
    frozen_worker,
    killed_workers,
    lost_before_start,
    poison,
    rolling_restart,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def seed() -> int:
    return secrets.randbelow(10**6)


def kept(row: Row) -> None:
    print(row)
    assert not row.failures, str(row)


def test_a_killed_worker_is_only_a_pause(seed: int) -> None:
    kept(killed_workers(doses=3, streams=16, seed=seed))


def test_a_killed_torch_worker_is_only_a_pause(seed: int) -> None:
    kept(killed_workers(doses=1, streams=12, seed=seed, small_model=True))


def test_rounding_is_no_excuse_for_a_lost_or_changed_token(seed: int) -> None:
    rng = random.Random(seed)
    with a_house(prepare=small_llama) as house:
        for _ in range(4):
            job = house.job(rng, tokens=200)
            tokens = tokens_of(house.undisturbed(job))
            said = partial(explains, house.folder / "model", job)
            at = len(tokens) // 2
            assert said(tokens)
            assert not said([*tokens[:at], (tokens[at] + 9) % 256, *tokens[at + 1 :]])
            if job.sampling.temperature:  # a greedy answer may go round in circles
                assert not said([*tokens[:at], *tokens[at + 1 :]])
                assert not said([*tokens[:at], tokens[at], *tokens[at:]])


def test_a_kill_inside_json_leaves_it_valid_and_identical(seed: int) -> None:
    kept(killed_inside_json(doses=2, streams=10, seed=seed))


def test_poison_does_not_spread(seed: int) -> None:
    kept(poison(batch=32, seed=seed))


def test_a_frozen_worker_is_fenced_when_it_wakes(seed: int) -> None:
    kept(frozen_worker(doses=1, seed=seed))


def test_nothing_is_lost_before_it_starts(seed: int) -> None:
    kept(lost_before_start(doses=1, seed=seed))


def test_a_killed_redis_loses_no_job(seed: int) -> None:
    kept(killed_redis(doses=1, seed=seed))


def test_a_flushed_redis_loses_no_job(seed: int) -> None:
    kept(flushed_redis(doses=1, seed=seed))


def test_a_rolling_restart_is_only_a_short_pause(seed: int) -> None:
    kept(rolling_restart(doses=2, streams=12, seed=seed))


def test_a_cancel_stops_the_compute_in_every_phase(seed: int) -> None:
    kept(cancelled_jobs(doses=16, seed=seed))


def test_nobody_waits_for_a_greedy_team(seed: int) -> None:
    kept(greedy_team(queued=500, seconds=3, seed=seed))
