"""What a request with a key costs the portal before its job is queued.

    python -m benchmarks.own_time [--count 300]

A real daphne, on PostgreSQL where there is one and else on SQLite, answers one chat completion of
one token after another. The watch is held inside its process (``benchmarks.timed``), from the
request's arrival in the application until its job lies in the queue: neither the client nor the
worker is counted, nor the server's reading of HTTP. What the processor did for a request in all,
its answer included, is said beside it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests import postgres
from tests.running import MODEL, Running

WARM_UP = 30
EMAIL = "bench@example.org"
HELD = """
from portal.accounts.models import User
from portal.teams.keys import Terms, create_key
from portal.teams.services import ensure_personal_team
from portal.usage.services import set_budget
user = User.objects.get(email="{email}")
team = ensure_personal_team(user=user)
set_budget(team=team, monthly_tokens=10**12)
print(create_key(team=team, user=user, name="held",
                 terms=Terms(["chat"], ["{model}"], 10**6, 10**9, 10**12))[1])
"""


@dataclass(slots=True)
class Cost:
    """Milliseconds: until the job is queued, of that on the processor, and with the answer."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    whole_cpu: float = 0.0

    @property
    def p50(self) -> float:
        return statistics.median(self.wall)

    def as_dict(self) -> dict[str, float]:
        return {
            "p50_ms": self.p50,
            "p95_ms": sorted(self.wall)[int(len(self.wall) * 0.95)],
            "cpu_ms": statistics.median(self.cpu),
            "whole_cpu_ms": self.whole_cpu,
        }


@dataclass(frozen=True, slots=True)
class RequestFigures:
    """``plain``: a key as it is made; ``held``: one with every limit, in a team with a budget."""

    database: str
    count: int
    plain: Cost
    held: Cost

    def lines(self) -> list[str]:
        said = [f"portal's own time per request, until its job is queued, on {self.database}"]
        for name, cost in (("a plain key", self.plain), ("a key with every limit", self.held)):
            found = cost.as_dict()
            said.append(
                f"  {name:<34}{found['p50_ms']:>10.1f} ms p50{found['p95_ms']:>9.1f} ms p95"
                f"{found['cpu_ms']:>9.1f} ms of the processor, {found['whole_cpu_ms']:.1f} ms with"
                " its answer"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "count": self.count,
            "plain": self.plain.as_dict(),
            "held": self.held.as_dict(),
        }


class Timed(Running):
    """A whole system whose portal holds a stopwatch."""

    def command(self, name: str) -> list[str]:
        command = super().command(name)
        return [*command[:-1], "benchmarks.timed:application"] if name == "portal" else command

    def cpu_seconds(self) -> float:
        """What the portal's process has had of the processor."""
        with open(f"/proc/{self.processes['portal'].pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _database() -> Iterator[tuple[str, dict[str, str]]]:
    """Its name, and the settings for it."""
    try:
        postgres.binaries()
    except postgres.NoPostgresError:
        yield "SQLite", {}
        return
    with postgres.server() as url:
        yield "PostgreSQL", {"DATABASE_URL": url}


def measure(count: int = 300) -> RequestFigures:
    """``count`` requests with each of two keys."""
    with (
        _database() as (name, settings),
        Timed(API_REQUESTS_PER_MINUTE=str(10**6), **settings) as running,
    ):
        plain = running.make_key(EMAIL)
        costs = [_cost(running, plain, count)]
        held = running.python(HELD.format(email=EMAIL, model=MODEL))
        costs.append(_cost(running, held, count))
    return RequestFigures(name, count, *costs)


def _cost(running: Timed, key: str, count: int) -> Cost:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    _ask(connection, key, WARM_UP)
    _samples(connection)
    before = running.cpu_seconds()
    _ask(connection, key, count)
    spent = running.cpu_seconds() - before
    found = _samples(connection)
    connection.close()
    return Cost(
        [wall * 1000 for wall, _ in found],
        [cpu * 1000 for _, cpu in found],
        spent / count * 1000,
    )


def _ask(connection: http.client.HTTPConnection, key: str, count: int) -> None:
    said = [{"role": "user", "content": "Name three rivers of Europe."}]
    body = json.dumps({"model": MODEL, "messages": said, "max_tokens": 1})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for _ in range(count):
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text


def _samples(connection: http.client.HTTPConnection) -> list[list[float]]:
    connection.request("GET", "/benchmark")
    found: list[list[float]] = json.loads(connection.getresponse().read())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_time")
    parser.add_argument("--count", type=int, default=300)
    print("\n".join(measure(parser.parse_args().count).lines()))


if __name__ == "__main__":
    main()
