"""Who runs next. Pure policy: no torch, no clock, no I/O.

Each step runs every running request that lacks one token, then as much of the longer gaps as the
token budget allows, oldest first, then admits waiting requests in their order. While others decode
that budget is smaller: every one of them waits for the step (``pace`` says how much smaller). When
blocks run out the newest running request gives its own back and computes them again later: the
oldest always advances, so everything ends. Pinned blocks give way to nobody but a request that is
alone with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from inference_workers.engine.kv_cache import BlockCache
from inference_workers.engine.request import Request, Status


@dataclass(slots=True)
class Scheduled:
    """Compute ``count`` tokens of ``request`` from its ``computed`` on."""

    request: Request
    count: int


class Scheduler:
    """Requests waiting and running; ``slots`` run at most, ``budget`` prompt tokens a step, or
    ``beside(streams)`` while so many others decode, but a block's at least."""

    def __init__(
        self,
        cache: BlockCache,
        *,
        slots: int,
        budget: int,
        beside: Callable[[int], int] | None = None,
    ) -> None:
        self.cache = cache
        self.slots = slots
        self.budget = budget
        self._beside = beside
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = 0
        self.blocked = False
        self._arrivals = 0

    def add(self, request: Request) -> None:
        request.arrival = self._arrivals
        self._arrivals += 1
        self.waiting.append(request)

    def end(self, request: Request) -> None:
        """Take a request out, whatever its state, and free its blocks."""
        if request.status is Status.RUNNING:
            self.running.remove(request)
        elif request.status is Status.WAITING:
            self.waiting.remove(request)
        self.cache.release(request)
        request.status = Status.ENDED

    def schedule(self) -> list[Scheduled]:
        """The next step's work, with blocks given out. Moving ``computed`` is the caller's."""
        plan: dict[int, Scheduled] = {}
        single = [r for r in self.running if r.pending == 1]
        longer = [r for r in self.running if r.pending > 1]
        budget = max(self.budget - len(single), self.cache.block_size)
        if single and self._beside is not None:
            budget = min(budget, max(self._beside(len(single)), self.cache.block_size))
        for request in single + longer:
            if request.status is not Status.RUNNING:
                continue
            count = min(request.pending, budget) if request.pending > 1 else 1
            if count and self._room(request, count, plan):
                plan[request.arrival] = Scheduled(request, count)
                budget -= count if request.pending > 1 else 0
        self.blocked = False
        for request in [r for r in self.waiting if not _waits_for_leader(r)]:
            if budget <= 0 or len(self.running) >= self.slots or not self._admit(request):
                self.blocked = True
                break
            count = min(request.pending, budget)
            grown = self.cache.grow(request, request.computed + count)
            assert grown, "room was checked"
            plan[request.arrival] = Scheduled(request, count)
            budget -= count
        return list(plan.values())

    def _room(self, request: Request, count: int, plan: dict[int, Scheduled]) -> bool:
        """Get blocks for ``count`` more tokens, from newer requests if need be."""
        while not self.cache.grow(request, request.computed + count):
            if len(self.running) == 1 and self.cache.unpin():
                continue
            newest = max(self.running, key=lambda r: r.arrival)
            self._preempt(newest)
            plan.pop(newest.arrival, None)
            if newest is request:
                return False
        return True

    def _admit(self, request: Request) -> bool:
        """Move a waiting request to the running ones if all its tokens find room."""
        known = self.cache.reusable(request)
        self.cache.adopt(request, known)
        missing = self.cache.needed(len(request.tokens)) - len(known)
        # One spare block, so that an admitted request is not the next step's first victim.
        if missing + bool(self.running) > self.cache.free:
            if self.running or not self.cache.unpin():
                self.cache.release(request)
                return False
            assert missing <= self.cache.free, "a request that fits nowhere was let in"
        self.cache.count(request)
        self.waiting.remove(request)
        request.status = Status.RUNNING
        self.running.append(request)
        return True

    def _preempt(self, request: Request) -> None:
        self.cache.release(request)
        self.running.remove(request)
        request.status = Status.WAITING
        self.waiting.appendleft(request)
        self.preemptions += 1


def _waits_for_leader(request: Request) -> bool:
    """A job's other choices wait until its first has computed the prompt: they share its blocks."""
    leader = request.leader
    if leader is None or leader.status is Status.ENDED:
        return False
    return leader.computed < leader.prompt and not leader.generated
