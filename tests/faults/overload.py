"""R11: overload sheds. Ten times what the system can do is asked of it, answered or not."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.report import Row
from tests.faults.system import Answer, System, at, complete, key_of

SLOTS, STEP, TOKENS = 8, 0.05, 32
QUEUE = 8
TIMES = 10
WARM_S = 1.0
SETTINGS = {"QUEUE_LIMIT": str(QUEUE), "API_REQUESTS_PER_MINUTE": "1000000"}


@dataclass(frozen=True, slots=True)
class _Load:
    """What was asked in a phase, and what became of it."""

    answers: list[Answer]
    silent: int
    tokens_per_second: float


def overload(*, seconds: float, seed: int, slow: float = 0.1) -> Row:
    """The peak of a closed loop, then for ``seconds`` ten times that rate in an open one.

    A tenth of the requests comes with a key that may send one a second: 429s are among them.
    ``slow`` is how many seconds a refusal may take (p99); more where the machine has other work.
    """
    with System(step=STEP, slots=SLOTS, **SETTINGS) as system:
        return asyncio.run(overload_of(system, seconds=seconds, seed=seed, slow=slow))


async def overload_of(system: System, *, seconds: float, seed: int, slow: float) -> Row:
    rng = random.Random(seed)
    row = Row("R11", f"{TIMES} times the capacity for {seconds:g} s", seed)
    keys = [key_of(system, "many"), key_of(system, "few", "--requests-per-minute", "60")]
    peak = await _closed(system, keys[0], max(2.0, min(20.0, seconds / 3)))
    rate = TIMES * peak.tokens_per_second / TOKENS
    begin = time.time()
    load = await _open(system, keys, rng, rate, seconds)
    _judge(row, load)
    good = load.tokens_per_second / peak.tokens_per_second
    row.check(good >= 0.9, f"goodput is {good:.0%} of the peak")
    told = system.inside(begin)
    inside = [line["seconds"] for line in told if line.get("status") in (429, 503)]
    late = [line["late"] for line in told if "late" in line]
    refused = [answer.seconds for answer in load.answers if answer.status != 200]
    row.check(at(refused, 0.99) <= slow, f"a refusal takes {at(refused, 0.99):.3f} s (p99)")
    row.check((await _ask(system, keys[0])).status == 200, "it is not well afterwards")
    row.figures = (
        f"peak {peak.tokens_per_second:.0f} tokens/s, {rate:.0f} requests/s asked, goodput "
        f"{good:.0%}; {dict(Counter(a.status for a in load.answers))}; a refusal takes p50 "
        f"{1000 * at(refused, 0.5):.0f}, p99 {1000 * at(refused, 0.99):.0f} ms (inside the portal "
        f"{1000 * at(inside, 0.5):.0f} and {1000 * at(inside, 0.99):.0f}, its loop late by p99 "
        f"{1000 * at(late, 0.99):.0f})"
    )
    return row


async def _ask(system: System, key: str) -> Answer:
    return await complete(system, key, "overload", TOKENS)


def _judge(row: Row, load: _Load) -> None:
    row.check(load.silent == 0, f"{load.silent} requests had no answer at all")
    for answer in load.answers:
        if answer.status == 200:
            said = answer.body.count(b'"finish_reason":"length"')
            said += answer.body.count(b'"finish_reason": "length"')
            row.check(said == 1, f"an answer is not whole: {answer.body[:200]!r}")
            continue
        row.check(answer.status in (429, 503), f"{answer.status}: {answer.body[:200]!r}")
        waits = answer.header("retry-after")
        row.check(waits.isdecimal() and int(waits) >= 1, f"Retry-After is {waits!r}")
    statuses = Counter(answer.status for answer in load.answers)
    row.check(statuses[200] > 0 and statuses[503] > 0, f"only {dict(statuses)}")


async def _closed(system: System, key: str, seconds: float) -> _Load:
    """As many callers as keep every slot busy, each asking again when it is answered."""
    answers: list[Answer] = []
    end = time.monotonic() + WARM_S + seconds

    async def one() -> None:
        while time.monotonic() < end:
            answers.append(await _ask(system, key))

    callers = [asyncio.create_task(one()) for _ in range(SLOTS + 2)]
    speed = await _speed(system, seconds)
    await asyncio.gather(*callers)
    return _Load(answers, 0, speed)


async def _open(
    system: System, keys: Sequence[str], rng: random.Random, rate: float, seconds: float
) -> _Load:
    """Requests at random moments, ``rate`` a second on the average."""
    sent: list[asyncio.Task[Answer]] = []
    measured = asyncio.create_task(_speed(system, seconds - WARM_S))
    due = begin = time.monotonic()
    while due < begin + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        key = keys[1] if rng.random() < 0.1 else keys[0]
        sent.append(asyncio.create_task(_ask(system, key)))
        due += rng.expovariate(rate)
    speed = await measured
    found = await asyncio.gather(*sent, return_exceptions=True)
    answers = [answer for answer in found if isinstance(answer, Answer)]
    return _Load(answers, len(found) - len(answers), speed)


async def _speed(system: System, seconds: float) -> float:
    """Tokens a second that the worker makes, once it is busy."""
    await asyncio.sleep(WARM_S)
    before, begin = system.generated(), time.monotonic()
    await asyncio.sleep(seconds)
    return (system.generated() - before) / (time.monotonic() - begin)
