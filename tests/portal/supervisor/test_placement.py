"""Which models get a worker, within a budget of memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_workers.queue import Leases, WorkerInfo
from portal.jobs import links
from portal.supervisor import tree
from portal.supervisor.placement import (
    IDLE_AFTER_S,
    Wanted,
    cost,
    decide,
    threads,
    unplaceable,
)
from portal.supervisor.watch import Watch

GB = 1 << 30
LATER = 1000.0


def on_demand(name: str, *, waiting: int = 0, size: int = GB) -> Wanted:
    return Wanted(name, always=False, bytes=size, waiting=waiting)


def test_a_model_placed_always_runs_even_beyond_the_budget() -> None:
    assert decide([Wanted("a", True, GB)], {}, budget=0, now=LATER).run == ("a",)


def test_a_model_on_demand_runs_once_jobs_wait_for_it() -> None:
    assert decide([on_demand("b")], {}, budget=8 * GB, now=LATER).run == ()
    assert decide([on_demand("b", waiting=1)], {}, budget=8 * GB, now=LATER).run == ("b",)


def test_it_stays_when_its_queue_is_empty_and_nobody_needs_the_room() -> None:
    assert decide([on_demand("b")], {"b": 0.0}, budget=8 * GB, now=LATER).run == ("b",)


def test_the_least_recently_used_one_makes_room() -> None:
    models = [on_demand("old"), on_demand("new"), on_demand("next", waiting=3)]
    used = {"new": 500.0, "old": 100.0}
    choice = decide(models, used, budget=2 * cost(GB), now=LATER)
    assert set(choice.run) == {"new", "next"}


def test_one_in_use_does_not_make_room() -> None:
    models = [on_demand("busy"), on_demand("next", waiting=3)]
    choice = decide(models, {"busy": LATER - 1}, budget=cost(GB), now=LATER)
    assert choice.run == ("busy",)
    assert choice.refused == ("next",)


def test_nothing_is_stopped_for_a_model_that_would_not_fit_anyway() -> None:
    models = [on_demand("small"), on_demand("huge", waiting=1, size=100 * GB)]
    choice = decide(models, {"small": 0.0}, budget=4 * GB, now=LATER)
    assert choice.run == ("small",)
    assert choice.refused == ("huge",)


def test_a_model_that_was_switched_off_loses_its_worker() -> None:
    assert decide([], {"gone": LATER}, budget=8 * GB, now=LATER).run == ()


@given(
    st.lists(
        st.builds(
            Wanted,
            st.sampled_from("abcdefgh"),
            st.just(False),
            st.integers(0, 8 * GB),
            st.integers(0, 3),
        ),
        unique_by=lambda model: model.id,
    ),
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, LATER)),
    st.integers(0, 40 * GB),
)
def test_what_is_started_fits_and_what_was_used_just_now_stays(
    models: list[Wanted], used: dict[str, float], budget: int
) -> None:
    choice = decide(models, used, budget=budget, now=LATER)
    sizes = {model.id: cost(model.bytes) for model in models}
    started = set(choice.run) - set(used)
    if started:
        assert sum(sizes[name] for name in choice.run) <= budget
    recent = {name for name, seen in used.items() if LATER - seen < IDLE_AFTER_S}
    assert recent & set(sizes) <= set(choice.run)
    assert not set(choice.refused) & set(choice.run)


def test_workers_share_the_cores() -> None:
    assert [threads(8, workers) for workers in (0, 1, 3, 8, 20)] == [8, 8, 2, 1, 1]


def test_what_has_no_room_even_alone_with_the_placed_ones_is_unplaceable() -> None:
    models = [Wanted("a", True, GB), on_demand("small"), on_demand("large", size=4 * GB)]
    budget = cost(GB) + cost(GB)
    assert unplaceable(models, budget=budget) == ("large",)
    assert unplaceable(models, budget=budget - 1) == ("small", "large")
    assert unplaceable(models, budget=100 * GB) == ()


@pytest.mark.usefixtures("transactional_db", "redis", "echo")
def test_the_supervisor_says_what_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(tree, "memory_budget", lambda: 0)
    watch._look()
    assert links.queue().outlook("echo") == (0, True)
    monkeypatch.setattr(tree, "memory_budget", lambda: 8 * GB)
    watch._look()
    assert links.queue().outlook("echo") == (0, False)


@pytest.mark.usefixtures("transactional_db", "redis", "echo")
def test_a_model_that_a_worker_could_not_load_takes_no_jobs_until_one_can() -> None:
    watch = Watch()
    watch.refused.add("echo")
    watch._look()
    assert links.queue().outlook("echo") == (0, True)
    leases = Leases(links.client())
    leases.register("w", model="echo", slots=1)
    leases.renew("w", WorkerInfo(name="w", model="echo", state="ready"))
    watch._look()
    assert links.queue().outlook("echo") == (0, False)
