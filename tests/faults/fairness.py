"""F1: a greedy team takes what is free, and nobody waits for it.

The bound is theorem 4.4's of "Fairness in Serving Large Language Models" (arXiv 2401.00588): in any
interval in which two teams both have work waiting, what they are served differs by at most
2 max(longest prompt, what one full batch can generate), both over weight.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, pairwise

from inference_workers.contract import Delta, Job, Sampling
from inference_workers.loading import SLOTS_PER_LANE
from inference_workers.queue import connect
from tests.faults.house import MODEL, House, a_house, until
from tests.faults.report import Row

STEP = 0.02
WORKERS, SLOTS = 2, 8
LONGEST_PROMPT, LONGEST_ANSWER = 400, 60
LIGHT = [f"light-{number}" for number in range(9)]
EVERY = 1.0
"""Seconds between two jobs of a light team, on the average."""
RIVALS = {"greedy": 1.0, "rival": 1.0, "double": 2.0}
"""Teams with work waiting, by weight."""
LOOK = 0.01


def greedy_team(*, queued: int, seconds: float, seed: int) -> Row:
    """Nine light teams alone for ``seconds``, then for as long beside one with ``queued`` jobs,
    then that one beside two others that have as much to do."""
    rng = random.Random(seed)
    row = Row("F1", f"{queued} jobs of one team, nine light ones", seed)
    with a_house(lease=6.0, step=STEP) as house:
        names = [house.worker(slots=SLOTS) for _ in range(WORKERS)]
        alone = _send_now_and_then(house, rng, seconds)
        backlog = _queue(house, rng, "greedy", queued)
        until(lambda: _held(house, names) >= WORKERS * SLOTS, 10, "every slot is taken")
        with _Watch(house, names) as watch:
            beside = _send_now_and_then(house, rng, seconds)
            for team in ("rival", "double"):
                backlog += _queue(house, rng, team, queued)
            time.sleep(seconds)
        gap, bound = _judge_shares(house, row, backlog)
    ratio = _compare(row, alone, beside)
    row.check(watch.longest < 0.5, f"a slot idled for {watch.longest:.2f} s while work waited")
    row.check(watch.share < 0.05, f"slots idled for {watch.share:.1%} of the time")
    row.figures = (
        f"{len(beside)} light jobs, first token p50 {1000 * _at(beside, 0.5):.0f} ms (alone "
        f"{1000 * _at(alone, 0.5):.0f}: {ratio:.2f} times), p95 {1000 * _at(beside, 0.95):.0f} "
        f"(alone {1000 * _at(alone, 0.95):.0f}); shares at most {gap:.0f} tokens apart, of "
        f"{bound:.0f}; slots idle {watch.share:.2%} of the time, {watch.longest:.3f} s at most"
    )
    return row


def _compare(row: Row, alone: Sequence[float], beside: Sequence[float]) -> float:
    ratio = _at(beside, 0.5) / _at(alone, 0.5)
    row.check(ratio <= 2.0, f"a light team waits {ratio:.2f} times as long as alone")
    return ratio


def _at(times: Sequence[float], part: float) -> float:
    return sorted(times)[int(part * (len(times) - 1))]


def _job(house: House, rng: random.Random, team: str, prompt: int, answer: int) -> Job:
    job = house.job(rng, tokens=answer, prompt="a" * prompt)
    greedy = Sampling(max_tokens=answer, ignore_eos=True)
    return job.model_copy(update={"team": team, "sampling": greedy})


def _queue(house: House, rng: random.Random, team: str, count: int) -> list[Job]:
    jobs = [
        _job(house, rng, team, rng.randint(5, LONGEST_PROMPT), rng.randint(20, LONGEST_ANSWER))
        for _ in range(count)
    ]
    for job in jobs:
        house.queue.enqueue(job, weight=RIVALS[team])
    return jobs


def _send_now_and_then(house: House, rng: random.Random, seconds: float) -> list[float]:
    """Seconds from being queued to the first token of every light job, on Redis' clock."""
    due = sorted(
        (rng.uniform(0, seconds), team) for team in LIGHT for _ in range(round(seconds / EVERY))
    )
    begin = time.monotonic()
    jobs: list[Job] = []
    for at, team in due:
        time.sleep(max(0.0, begin + at - time.monotonic()))
        jobs.append(_job(house, rng, team, rng.randint(5, 100), rng.randint(8, 16)))
        house.queue.enqueue(jobs[-1])
    return [until(partial(_first_token, house, job), 60, "a first token") for job in jobs]


def _first_token(house: House, job: Job) -> float | None:
    state = house.queue.state(job.id)
    if state is None or state.first_token_at is None or state.queued_at is None:
        return None
    return state.first_token_at - state.queued_at


def _held(house: House, names: Iterable[str]) -> int:
    return sum(house.redis.scard(house.queue.keys.worker_jobs(name)) for name in names)


@dataclass
class _Watch:
    """Looks from time to time whether a worker has a free slot while jobs wait."""

    house: House
    names: list[str]
    looks: int = 0
    idle: int = 0
    longest: float = 0.0
    _since: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)

    @property
    def share(self) -> float:
        """Of the slots' time."""
        return self.idle / max(1, self.looks * WORKERS * SLOTS)

    def _run(self) -> None:
        client, keys = connect(self.house.valkey.url), self.house.queue.keys
        while not self._over.wait(LOOK):
            with client.pipeline() as pipe:
                pipe.zcard(keys.waiting(MODEL))
                for name in self.names:
                    pipe.scard(keys.worker_jobs(name))
                waiting, *held = pipe.execute()
            now = time.monotonic()
            self.looks += 1
            for name, count in zip(self.names, held, strict=True):
                free = max(0, SLOTS - count) if waiting else 0
                self.idle += free
                since = self._since.setdefault(name, now) if free else now
                self.longest = max(self.longest, now - since)
                if not free:
                    self._since.pop(name, None)


def _judge_shares(house: House, row: Row, jobs: Sequence[Job]) -> tuple[float, float]:
    """The largest gap between two teams that both had work waiting, and the bound of that pair."""
    served = _served(house, jobs)
    worst, its_bound = 0.0, 0.0
    batch = WORKERS * (SLOTS + SLOTS // SLOTS_PER_LANE) * LONGEST_ANSWER
    for one, other in combinations(RIVALS, 2):
        bound = 2 * max(LONGEST_PROMPT, batch) / min(RIVALS[one], RIVALS[other])
        gap = _gap(served[one], served[other], _both_waited(house, jobs, one, other))
        row.check(gap <= bound, f"{one} and {other} are {gap:.0f} tokens apart, of {bound:.0f}")
        if gap >= worst:
            worst, its_bound = gap, bound
    return worst, its_bound


Service = list[tuple[float, float]]
"""When, and how many tokens over weight, in order."""


def _served(house: House, jobs: Sequence[Job]) -> dict[str, Service]:
    """What each team was served, from the jobs' logs: no counter of the queue's is asked."""
    found: dict[str, Service] = {team: [] for team in RIVALS}
    for job in jobs:
        state = house.queue.state(job.id)
        if state is None or state.claimed_at is None:
            continue
        weight = RIVALS[job.team]
        found[job.team].append((state.claimed_at, len(job.input_ids) / weight))
        for entry in house.log.read(job.id):
            if isinstance(entry.event, Delta):
                found[job.team].append((entry.at, len(entry.event.token_ids) / weight))
    return {team: sorted(service) for team, service in found.items()}


def _both_waited(house: House, jobs: Sequence[Job], one: str, other: str) -> tuple[float, float]:
    """From when to when both teams had jobs in the queue."""
    begins: list[float] = []
    ends: list[float] = []
    for team in (one, other):
        states = [house.queue.state(job.id) for job in jobs if job.team == team]
        begins.append(max(state.queued_at or 0.0 for state in states if state))
        claims = [state.claimed_at for state in states if state]
        waits = any(claim is None for claim in claims)
        ends.append(time.time() if waits else max(claim for claim in claims if claim))
    return max(begins), min(ends)


def _gap(one: Service, other: Service, between: tuple[float, float]) -> float:
    """The most by which the two were served differently in any interval in ``between``."""
    begin, end = between
    steps = [(at, amount) for at, amount in one] + [(at, -amount) for at, amount in other]
    ahead = least = most = 0.0
    for (at, amount), (following, _) in pairwise([*sorted(steps), (end, 0.0)]):
        if begin <= at <= end:
            ahead += amount
            if following > at:
                least, most = min(least, ahead), max(most, ahead)
    return most - least
