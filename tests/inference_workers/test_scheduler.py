"""Scheduler and cache accounting: any sequence of events keeps every block accounted for."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from inference_workers.engine.kv_cache import BlockCache
from inference_workers.engine.request import Request, Status
from inference_workers.engine.scheduler import Scheduler


def request(name: str, tokens: list[int], **more: object) -> Request:
    return Request(job=name, choice=0, tokens=tokens, prompt=len(tokens), own=name, **more)  # type: ignore[arg-type]


def advance(scheduler: Scheduler, token: int = 1) -> list[Request]:
    """One step as the engine does it: compute what is scheduled, sample what is complete."""
    plan = scheduler.schedule()
    for item in plan:
        before = item.request.computed
        assert item.count >= 1
        assert scheduler.cache.needed(before + item.count) <= len(item.request.blocks)
        item.request.computed += item.count
        scheduler.cache.remember(item.request, before)
        assert item.request.pending >= 0
        if not item.request.pending:
            item.request.tokens.append(token)
    return [item.request for item in plan]


class Scheduling(RuleBasedStateMachine):
    """Random arrivals, steps, endings and failures on a small cache."""

    @initialize(
        blocks=st.integers(4, 16),
        size=st.integers(1, 5),
        slots=st.integers(1, 4),
        budget=st.integers(1, 12),
        beside=st.integers(1, 12),
        reuse=st.booleans(),
    )
    def start(
        self, blocks: int, size: int, slots: int, budget: int, beside: int, reuse: bool
    ) -> None:
        self.cache = BlockCache(blocks, size, reuse=reuse)
        self.scheduler = Scheduler(
            self.cache, slots=slots, budget=budget, beside=lambda streams: beside
        )
        self.live: list[Request] = []
        self.capacity = blocks * size
        self.names = 0

    @rule(
        length=st.integers(1, 30),
        shared=st.booleans(),
        pinned=st.integers(0, 30),
        choices=st.integers(1, 3),
    )
    def arrive(self, length: int, shared: bool, pinned: int, choices: int) -> None:
        length = min(length, self.capacity)
        self.names += 1
        leader = None
        for _ in range(choices):
            tokens = [0] * length if shared else [self.names] * length
            salts = (("app", length),) if shared else ()
            new = request(str(self.names), tokens, salts=salts, pinned=pinned, leader=leader)
            leader = leader or new
            self.live.append(new)
            self.scheduler.add(new)

    @rule(steps=st.integers(1, 6), token=st.integers(0, 2))
    def step(self, steps: int, token: int) -> None:
        for _ in range(steps):
            ran = advance(self.scheduler, token)
            assert ran or not self.live, "somebody waits, nobody runs"
            for done in [r for r in self.live if len(r.tokens) > self.capacity]:
                self.finish(done)

    @rule(index=st.integers(0, 100), spoilt=st.booleans())
    def leave(self, index: int, spoilt: bool) -> None:
        if self.live:
            leaving = self.live[index % len(self.live)]
            if spoilt:
                self.cache.discard(leaving)
            self.finish(leaving)

    def finish(self, leaving: Request) -> None:
        self.scheduler.end(leaving)
        self.live.remove(leaving)
        assert leaving.status is Status.ENDED
        assert not leaving.blocks

    @invariant()
    def everything_is_accounted_for(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.cache.check(self.live)
        running, waiting = self.scheduler.running, list(self.scheduler.waiting)
        assert len(running) <= self.scheduler.slots
        assert {*map(id, running), *map(id, waiting)} == {*map(id, self.live)}
        assert all(r.status is Status.RUNNING for r in running)
        assert all(r.status is Status.WAITING and not r.blocks for r in waiting)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def scheduler(blocks: int = 50, size: int = 4, slots: int = 8, budget: int = 8) -> Scheduler:
    return Scheduler(BlockCache(blocks, size), slots=slots, budget=budget)


def test_a_long_prompt_never_stops_those_who_lack_one_token() -> None:
    served = scheduler()
    short = request("short", [1] * 3)
    served.add(short)
    advance(served)
    long = request("long", [2] * 60)
    served.add(long)
    for _ in range(5):
        assert short in advance(served)
        assert long.computed <= 60
    assert short.generated == 6
    assert long.computed == 5 * 7


def test_a_step_computes_no_more_prompt_than_the_budget() -> None:
    served = scheduler(budget=10)
    for name in "abcd":
        served.add(request(name, [ord(name)] * 7))
    assert sum(item.count for item in served.schedule()) == 10


def test_a_prompt_is_computed_in_smaller_parts_while_others_decode() -> None:
    served = Scheduler(BlockCache(50, 4), slots=8, budget=40, beside=lambda streams: 5)
    served.add(request("early", [1] * 30))
    assert [item.count for item in served.schedule()] == [30]  # alone: nobody waits for the step
    served.running[0].computed = 30
    served.running[0].tokens.append(1)
    served.add(request("late", [2] * 12))
    counts = []
    while len(counts) < 3:
        counts.append([item.count for item in served.schedule()])
        for running, count in zip(served.running, counts[-1], strict=True):
            running.computed += count
        served.running[0].tokens.append(1)
    assert counts == [[1, 5], [1, 5], [1, 2]]


def test_the_newest_gives_its_blocks_back_and_the_oldest_goes_on() -> None:
    served = scheduler(blocks=8, budget=64)
    old, new = request("old", [1] * 12), request("new", [2] * 12)
    served.add(old)
    served.add(new)
    for _ in range(30):
        ran = advance(served)
        assert old in ran
        if len(old.tokens) == 32:
            break
    assert served.preemptions == 1
    assert new.status is Status.WAITING
    served.end(old)
    while len(new.tokens) < 30:
        assert advance(served) == [new]


def test_waiting_requests_are_admitted_in_their_order() -> None:
    served = scheduler(slots=1, budget=64)
    order = [request(name, [1] * 5) for name in "abc"]
    for one in order:
        served.add(one)
    for one in order:
        assert advance(served) == [one]
        served.end(one)


@pytest.mark.parametrize("change", ["tokens", "salt", "digest"])
def test_a_blocks_hash_covers_weights_salt_and_tokens(change: str) -> None:
    cache = BlockCache(10, 4)
    first = request("a", [1] * 9, salts=(("s", 9),))
    assert cache.grow(first, 9)
    first.computed = 9
    cache.remember(first, 0)
    same = request("b", [1] * 9, salts=(("s", 9),))
    assert cache.reusable(same) == first.blocks[:2]
    match change:
        case "tokens":
            other = request("c", [2] + [1] * 8, salts=(("s", 9),))
        case "salt":
            other = request("c", [1] * 9, salts=(("t", 9),))
        case _:
            other, cache._root = request("c", [1] * 9, salts=(("s", 9),)), b"other weights"
    assert cache.reusable(other) == []


def test_a_block_across_two_salts_needs_both() -> None:
    cache = BlockCache(10, 4)
    first = request("a", [1] * 9, salts=(("app", 6), ("team", 3)))
    assert cache.grow(first, 9)
    first.computed = 9
    cache.remember(first, 0)
    other = request("b", [1] * 9, salts=(("app", 6), ("stranger", 3)))
    assert cache.reusable(other) == first.blocks[:1]


def test_remembered_blocks_are_evicted_from_the_end_of_the_oldest() -> None:
    cache = BlockCache(4, 2)
    first = request("a", [1, 2, 3, 4, 5], salts=(("s", 5),))
    assert cache.grow(first, 5)
    first.computed = 5
    cache.remember(first, 0)
    blocks = list(first.blocks)
    cache.release(first)
    second = request("b", [9, 9, 9, 9, 9])
    assert cache.grow(second, 5)
    again = request("c", [1, 2, 3, 4, 5], salts=(("s", 5),))
    assert cache.reusable(again) == blocks[:1]


def computed(cache: BlockCache, name: str, tokens: list[int], pinned: int = 0) -> list[int]:
    """Compute a request and end it; the blocks that it had."""
    done = request(name, tokens, salts=((name, len(tokens)),), pinned=pinned)
    cache.adopt(done, cache.reusable(done))
    before = done.computed
    assert cache.grow(done, len(tokens))
    done.computed = len(tokens)
    cache.remember(done, before)
    blocks = list(done.blocks)
    cache.release(done)
    cache.check([])
    return blocks


def known(cache: BlockCache, name: str, tokens: list[int]) -> list[int]:
    return cache.reusable(request("again", [*tokens, 0], salts=((name, len(tokens)),)))


def test_pinned_blocks_outlive_everything_that_comes_and_goes() -> None:
    cache = BlockCache(16, 2)
    app = computed(cache, "app", [1, 2, 3, 4, 5, 6], pinned=5)
    other = computed(cache, "other", [7, 8, 9, 10, 11, 12])
    assert known(cache, "other", [7, 8, 9, 10, 11, 12]) == other
    for stranger in range(20):
        computed(cache, f"stranger {stranger}", [20 + stranger] * 10)
    assert known(cache, "other", [7, 8, 9, 10, 11, 12]) == []
    assert known(cache, "app", [1, 2, 3, 4, 5, 6]) == app[:2]  # the third lies in part beyond
    assert (cache.pinned, cache.used) == (2, 0)


def test_what_is_known_already_is_pinned_when_it_is_asked_for() -> None:
    cache = BlockCache(16, 2)
    app = computed(cache, "app", [1, 2, 3, 4, 5])
    assert cache.pinned == 0
    computed(cache, "app", [1, 2, 3, 4, 5], pinned=4)
    assert list(cache._pinned) == [app[1], app[0]]


def test_pinned_blocks_take_a_quarter_at_the_most_and_the_oldest_give_way() -> None:
    cache = BlockCache(16, 2)
    first = computed(cache, "first", [1, 2, 3, 4, 5, 6], pinned=6)
    second = computed(cache, "second", [7, 8, 9, 10, 11, 12], pinned=6)
    assert cache.pinned == 4
    for stranger in range(20):
        computed(cache, f"stranger {stranger}", [20 + stranger] * 10)
    assert known(cache, "first", [1, 2, 3, 4, 5, 6]) == first[:1]  # it goes from its end
    assert known(cache, "second", [7, 8, 9, 10, 11, 12]) == second


def test_pinned_blocks_are_spared_while_others_can_be_preempted() -> None:
    served = scheduler(blocks=12, size=2, budget=64)
    app = computed(served.cache, "app", [1, 2, 3, 4, 5, 6], pinned=6)
    old, new = request("old", [2] * 6), request("new", [3] * 6)
    served.add(old)
    served.add(new)
    while served.preemptions == 0:
        assert advance(served)
    assert known(served.cache, "app", [1, 2, 3, 4, 5, 6]) == app
    served.end(old)
    served.end(new)
    assert known(served.cache, "app", [1, 2, 3, 4, 5, 6]) == app


def test_they_give_way_to_a_request_that_has_the_worker_to_itself() -> None:
    served = scheduler(blocks=12, size=2, budget=64)
    computed(served.cache, "app", [1, 2, 3, 4, 5, 6], pinned=6)
    whole = request("whole", [2] * 20)
    served.add(whole)
    while len(whole.tokens) < 24:
        assert advance(served) == [whole]
    assert served.preemptions == 0
    served.end(whole)
    admitted = request("admitted", [3] * 24)
    computed(served.cache, "app", [1, 2, 3, 4, 5, 6], pinned=6)
    served.add(admitted)
    assert advance(served) == [admitted]


def test_hits_are_counted_in_tokens() -> None:
    served = scheduler()
    first = request("first", [1] * 9, salts=(("s", 9),))
    served.add(first)
    advance(served)
    advance(served)
    again = request("again", [1] * 8 + [2] * 2, salts=(("s", 8),))
    served.add(again)
    advance(served)
    assert (served.cache.hits, served.cache.lookups) == (8, 19)


@pytest.mark.parametrize("blocks", range(10, 16))
def test_a_victim_already_in_the_plan_leaves_it(blocks: int) -> None:
    served = scheduler(blocks=blocks, size=2, budget=8)
    leader = request("job", [1] * 12)
    sibling = request("job", [1] * 12, leader=leader)
    late = request("late", [2] * 2)
    live = [leader, sibling, late]
    for one in live:
        served.add(one)
    overtaken = False
    for _ in range(60):
        overtaken |= served.running[-2:] == [late, sibling]
        advance(served)
        served.cache.check(live)
        for done in [r for r in live if len(r.tokens) > 2 * blocks]:
            served.end(done)
            live.remove(done)
    assert overtaken
