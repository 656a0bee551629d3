"""The usage pages with a million jobs, and what a request costs before its job is queued.

    python -m tests.postgres -- python -m benchmarks.usage [--jobs 1000000]
    python -m benchmarks.usage --jobs 0      # a request alone, on SQLite

The rows are made by PostgreSQL itself, in a database that this makes and drops: 90 days, 200 teams
of which the largest has a third of all jobs, and there 40 keys, 20 members, 8 models and 12 apps in
use at once. The hourly roll-ups are the jobs' own, as the portal would have written them.

A request is timed in this process, from the handler's call to the response's head, which a streamed
answer has as soon as its job is queued.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import environment

environment.prepare()

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import AsyncClient, Client  # noqa: E402
from django.test.utils import (  # noqa: E402
    setup_databases,
    setup_test_environment,
    teardown_databases,
)

from portal.lean import KeyedHandler  # noqa: E402
from portal.sqlite import hold_open  # noqa: E402

if TYPE_CHECKING:
    from portal.accounts.models import User
    from portal.teams.models import Team

TEAMS, KEYS, MEMBERS, WARM_UP = 200, 40, 20, 20
GOAL_MS = {"page": 300.0, "request": 10.0}

JOBS = """
CREATE TEMP TABLE made AS
SELECT gen_random_uuid() AS id,
       now() - random() * interval '90 days' AS at,
       CASE WHEN random() < 0.34 THEN 0 ELSE floor(random() * {teams})::int END AS team,
       'model-' || floor(8 * random() ^ 2)::int AS model,
       floor({keys} * random() ^ 2)::int AS key,
       (20 + random() * 2000)::int AS prompt,
       (10 + random() * 500)::int AS completion
FROM generate_series(1, {jobs});

INSERT INTO jobs_job (id, team_id, user_id, session, source, model_id, model_digest, format,
    input_ids, prefixes, sampling, seed, idempotency_key, request_digest, epoch, state, reason,
    error_code, error_message, prompt_tokens, completion_tokens, cached_tokens, queued_at,
    recorded_at, fleeting)
SELECT made.id, t.id, m.id, '', 'app:' || key % 12, made.model, 'sha', 'f32', '[1, 2, 3]', '[]',
    '{{}}', 1, '', '', 0, 'finished', 'stop', '', '', prompt, completion, 0, at, at, false
FROM made JOIN teams t ON t.n = made.team JOIN members m ON m.n = key % {members};

INSERT INTO usage_usagehour (team_id, hour, model, source, key_id, member_id, jobs, prompt_tokens,
    completion_tokens)
SELECT t.id, date_trunc('hour', at), model, 'app:' || key % 12, k.id, m.id, count(*), sum(prompt),
    sum(completion)
FROM made JOIN teams t ON t.n = made.team JOIN members m ON m.n = key % {members}
    JOIN keys k ON k.n = key
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO usage_usageday (team_id, day, model, source, key_id, member_id, jobs, prompt_tokens,
    completion_tokens)
SELECT team_id, hour::date, model, source, key_id, member_id, sum(jobs), sum(prompt_tokens),
    sum(completion_tokens)
FROM usage_usagehour GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO usage_usagemonth (team_id, key_id, month, spent, reserved, told)
SELECT team_id, '00000000-0000-0000-0000-000000000000', date_trunc('month', hour)::date,
    sum(prompt_tokens + completion_tokens), 0, 0
FROM usage_usagehour GROUP BY 1, 3;
"""


def cast() -> tuple[User, Team]:
    """Teams, members and keys; an owner of the largest team, and that team."""
    from portal.accounts.models import User
    from portal.catalogue.models import CatalogueModel
    from portal.teams.keys import create_key
    from portal.teams.models import Membership, Team

    shared = Team.Kind.SHARED
    teams = Team.objects.bulk_create(Team(name=f"t{n}", kind=shared) for n in range(TEAMS))
    users = [User.objects.create_user(f"u{n}@example.org") for n in range(MEMBERS)]
    Membership.objects.bulk_create(
        Membership(team=teams[0], user=user, role=Membership.Role.OWNER) for user in users
    )
    keys = [
        create_key(team=teams[0], user=users[n % MEMBERS], name=f"k{n}")[0] for n in range(KEYS)
    ]
    CatalogueModel.objects.bulk_create(
        CatalogueModel(
            id=f"model-{n}", name=f"model-{n}", licence="none", price_input=1, price_output=2
        )
        for n in range(8)
    )
    for name, rows in (("teams", teams), ("members", users), ("keys", keys)):
        kind = "bigint" if name == "members" else "uuid"
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMP TABLE {name} (n int, id {kind})")
            cursor.executemany(
                f"INSERT INTO {name} VALUES (%s, %s)", [(n, row.pk) for n, row in enumerate(rows)]
            )
    return users[0], teams[0]


def pages(jobs: int, rounds: int) -> None:
    """Time what people open; each figure is of a whole request, sign-in included."""
    user, team = cast()
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(JOBS.format(jobs=jobs, teams=TEAMS, keys=KEYS, members=MEMBERS))
        cursor.execute("ANALYZE")
        cursor.execute("SELECT count(*), count(*) FILTER (WHERE team_id = %s) FROM usage_usagehour",
                       [team.pk])  # fmt: skip
        hours, own = cursor.fetchone()
    seconds = time.perf_counter() - began
    print(f"{jobs:,} jobs, {hours:,} roll-ups ({own:,} of the largest team) in {seconds:.0f} s")
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    client.post("/teams/choose", {"team": str(team.pk)})
    today = time.strftime("%Y-%m-%d", time.gmtime())
    ninety = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 89 * 86_400))
    for name, path in (
        ("usage, 30 days", "/teams/usage"),
        ("usage, 90 days", f"/teams/usage?from={ninety}&to={today}"),
        ("limits", "/teams/limits"),
        ("keys", "/teams/keys"),
        ("CSV, 7 days", f"/teams/usage.csv?from={_days_ago(6)}&to={today}"),
    ):
        _time(name, lambda path=path: _get(client, path), rounds)


def _days_ago(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86_400))


def _get(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, response.status_code


def _time(name: str, act: Callable[[], Any], rounds: int) -> None:
    act()
    began = time.process_time()
    samples = [_seconds(act) for _ in range(rounds)]
    _say(name, samples, GOAL_MS["page"], (time.process_time() - began) / rounds)


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _say(name: str, samples: list[float], goal: float, own: float) -> None:
    """``own``: seconds of this process' processor a call, which a busy machine doesn't change."""
    found = sorted(sample * 1000 for sample in samples)
    p50, p95 = statistics.median(found), found[int(len(found) * 0.95)]
    met = "" if p50 <= goal else f"   above the goal of {goal:.0f} ms"
    figures = f"p50 {p50:>7.1f} ms   p95 {p95:>7.1f} ms   own {own * 1000:>6.1f} ms"
    print(f"{name:<32}{figures}{met}", flush=True)


def request(rounds: int) -> None:
    """An authenticated completion of a short prompt, until its job is queued."""
    from portal.accounts.models import User
    from portal.teams.keys import Terms, create_key
    from portal.teams.services import ensure_personal_team
    from portal.usage.services import set_budget

    _echo()
    user = User.objects.create_user("requests@example.org")
    team = ensure_personal_team(user=user)
    set_budget(team=team, monthly_tokens=10**12)
    settings.LLMASOS = settings.LLMASOS.model_copy(
        update={"api_requests_per_minute": 10**6, "queue_limit": 10**6}
    )
    for name, terms in (
        ("a request with a plain key", Terms()),
        ("with every limit set", Terms(["chat"], ["echo"], 10**6, 10**9, 10**12)),
    ):
        key = create_key(team=team, user=user, name=name, terms=terms)[1]
        with asyncio.Runner() as runner:
            samples, own = runner.run(_requests(key, rounds))
            _say(name, samples, GOAL_MS["request"], own)


async def _requests(key: str, rounds: int) -> tuple[list[float], float]:
    """Seconds of each, and of the processor for each. Answers are kept: dropping one cancels."""
    client, headers = AsyncClient(), {"Authorization": f"Bearer {key}"}
    client.handler._middleware_chain = KeyedHandler()._middleware_chain  # as portal.asgi does
    body = {"model": "echo", "prompt": "Write a line about rivers.", "stream": True}
    samples, answers, own = [], [], 0.0
    for number in range(rounds + WARM_UP):
        if number == WARM_UP:
            own = time.process_time()
        began = time.perf_counter()
        response = await client.post(
            "/v1/completions", body, content_type="application/json", headers=headers
        )
        samples.append(time.perf_counter() - began)
        assert response.status_code == 200, response.content
        answers.append(response)
    return samples[WARM_UP:], (time.process_time() - own) / rounds


def _echo() -> None:
    """The model that takes these jobs; nothing runs them."""
    import json
    import subprocess

    from portal.catalogue.selectors import get
    from portal.catalogue.services import begin_preparing, finish_preparing, place, sync_builtin

    folder = Path(settings.LLMASOS.data, "models", "echo")
    command = ("prepare", "--source", "echo", "--id", "echo", "--out", str(folder))
    subprocess.run([sys.executable, "-m", "inference_workers", *command], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    sync_builtin()
    begin_preparing(model=get("echo"))
    manifest = json.loads((folder / "manifest.json").read_text())
    finish_preparing(model=get("echo"), manifest=manifest)
    place(model=get("echo"), placement="on_demand")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usage")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="0 leaves the pages out")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    if given.jobs and connection.vendor != "postgresql":
        print("The pages are timed on PostgreSQL: python -m tests.postgres -- python -m "
              "benchmarks.usage", file=sys.stderr)  # fmt: skip
        return 1
    valkey = environment.Valkey(environment.ROOT)
    valkey.start()
    setup_test_environment()
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(environment.ROOT / "bench.sqlite3")
    made = setup_databases(verbosity=0, interactive=False)
    try:
        hold_open()
        print(f"On {connection.vendor}", flush=True)
        if given.jobs:
            pages(given.jobs, given.rounds)
        request(given.rounds * 15)
    finally:
        teardown_databases(made, verbosity=0)
        valkey.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
