"""F2: a key's limits a minute are exact for any number of requests at once, and its headers true.

Budgets, which are the database's matter, are tested for the same in ``tests/portal/usage``.
"""

from __future__ import annotations

import asyncio
import time

from tests.faults.report import Row
from tests.faults.system import Answer, System, complete, key_of
from tests.running import Running

AT_ONCE = 200
REQUESTS, TOKENS = 120, 6000
"""A minute: a request comes back every half second, a hundred tokens a second."""
PROMPT, ANSWER = "12345", 95


def key_limits(*, seed: int) -> Row:
    with System(step=0.0) as system:
        return asyncio.run(key_limits_of(system, seed=seed))


async def key_limits_of(system: Running, *, seed: int) -> Row:
    row = Row("F2", f"{AT_ONCE} requests at once at the limit, twice", seed)
    few = key_of(system, "few", "--requests-per-minute", str(REQUESTS))
    small = key_of(system, "small", "--tokens-per-minute", str(TOKENS))
    cost = len(PROMPT) + ANSWER
    row.figures = "; ".join(
        [
            await _requests(system, row, few),
            await _tokens(system, row, small, cost),
        ]
    )
    return row


async def _ask(system: Running, key: str, answer: int = ANSWER) -> Answer:
    return await complete(system, key, PROMPT, answer)


async def _at_once(system: Running, key: str, answer: int) -> tuple[list[Answer], float]:
    """The answers, and over how many seconds they came."""
    begin = time.monotonic()
    answers = await asyncio.gather(*(_ask(system, key, answer) for _ in range(AT_ONCE)))
    return list(answers), time.monotonic() - begin


async def _requests(system: Running, row: Row, key: str) -> str:
    answers, seconds = await _at_once(system, key, 1)
    granted = _judge(row, answers, "requests", REQUESTS, 1, seconds)
    await _come_back(row, system, key, answers)
    last = await _ask(system, key, 1)
    begin, left = time.monotonic(), _left(last, "requests")
    more = [await _ask(system, key, 1) for _ in range(left + 1)]
    back = int((time.monotonic() - begin) * REQUESTS / 60) + 1
    fine = sum(answer.status == 200 for answer in more)
    row.check(left <= fine <= left + back, f"{left} requests were left, and {fine} went through")
    return f"{granted} of {AT_ONCE} requests granted in {seconds:.1f} s, {REQUESTS} a minute"


async def _tokens(system: Running, row: Row, key: str, cost: int) -> str:
    answers, seconds = await _at_once(system, key, ANSWER)
    granted = _judge(row, answers, "tokens", TOKENS, cost, seconds)
    await _come_back(row, system, key, answers)
    last = await _ask(system, key, 1)
    left = _left(last, "tokens")
    over = await _ask(system, key, left + 300 - len(PROMPT))
    row.check(over.status == 429, f"{left} tokens were left, and {left + 300} were granted")
    if left > len(PROMPT):
        fits = await _ask(system, key, left - len(PROMPT))
        row.check(fits.status == 200, f"{left} tokens were left, and {left} were refused")
    return f"{granted} of {AT_ONCE} granted in {seconds:.1f} s, {TOKENS} tokens a minute"


def _judge(
    row: Row, answers: list[Answer], what: str, limit: int, cost: int, seconds: float
) -> int:
    """None over the limit and what came back meanwhile, none refused below it; headers say so."""
    granted = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    row.check(len(granted) + len(refused) == len(answers), f"{what}: {_statuses(answers)}")
    most = (limit + int(seconds * limit / 60)) // cost
    least = min(len(answers), limit // cost)
    row.check(least <= len(granted) <= most, f"{what}: {len(granted)} granted, not {least}…{most}")
    for answer in answers:
        row.check(answer.header(f"x-ratelimit-limit-{what}") == str(limit), f"{what}: {answer}")
        row.check(0 <= _left(answer, what) <= limit - cost, f"{what}: {answer.headers}")
    told = [_left(answer, what) for answer in granted]
    twice = len(told) - len(set(told))
    row.check(twice <= seconds * limit / 60 / cost + 2, f"{what}: the same was told again, {told}")
    for answer in refused:
        row.check(_left(answer, what) < cost, f"{what}: refused with {_left(answer, what)} left")
        reset = float(answer.header(f"x-ratelimit-reset-{what}").removesuffix("s"))
        row.check(0 < reset <= 60, f"{what}: all is back in {reset} s")
        row.check(int(answer.header("retry-after") or 0) >= 1, f"{what}: {answer.headers}")
    return len(granted)


async def _come_back(row: Row, system: Running, key: str, answers: list[Answer]) -> None:
    """Whoever waits for as long as the last refusal said is let through."""
    refused = [answer for answer in answers if answer.status == 429]
    row.check(bool(refused), "nothing was refused")
    if refused:
        await asyncio.sleep(max(int(answer.header("retry-after")) for answer in refused))
        answer = await _ask(system, key, ANSWER)
        row.check(answer.status == 200, f"refused again after Retry-After: {answer}")


def _left(answer: Answer, what: str) -> int:
    return int(answer.header(f"x-ratelimit-remaining-{what}"))


def _statuses(answers: list[Answer]) -> dict[int, int]:
    return {s: sum(a.status == s for a in answers) for s in {a.status for a in answers}}
