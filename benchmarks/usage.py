"""The usage pages with a million jobs.

    python -m tests.postgres -- python -m benchmarks.usage [--jobs 1000000]

The rows are made by PostgreSQL itself, in a database that this makes and drops: 90 days, 200 teams
of which the largest has a third of all jobs, and there 40 keys, 20 members, 8 models and 12 apps in
use at once. The roll-ups are the jobs' own, as the portal would have written them: hour after hour,
the teams' rows mixed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import environment

environment.prepare()
os.environ["LOG_LEVEL"] = "WARNING"  # a line for each page would be lost among the figures

import django  # noqa: E402

django.setup()

from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import (  # noqa: E402
    setup_databases,
    setup_test_environment,
    teardown_databases,
)

if TYPE_CHECKING:
    from portal.accounts.models import User
    from portal.teams.models import Team

TEAMS, KEYS, MEMBERS = 200, 40, 20

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
    input_ids, lengths, prefixes, sampling, seed, idempotency_key, request_digest, epoch, state,
    reason, error_code, error_message, prompt_tokens, completion_tokens, cached_tokens, queued_at,
    recorded_at, fleeting)
SELECT made.id, t.id, m.id, '', 'app:' || key % 12, made.model, 'sha', 'f32', '[1, 2, 3]', '[]',
    '[]', '{{}}', 1, '', '', 0, 'finished', 'stop', '', '', prompt, completion, 0, at, at, false
FROM made JOIN teams t ON t.n = made.team JOIN members m ON m.n = key % {members};

INSERT INTO usage_usagehour (team_id, hour, model, source, key_id, member_id, jobs, prompt_tokens,
    completion_tokens)
SELECT t.id, date_trunc('hour', at), model, 'app:' || key % 12, k.id, m.id, count(*), sum(prompt),
    sum(completion)
FROM made JOIN teams t ON t.n = made.team JOIN members m ON m.n = key % {members}
    JOIN keys k ON k.n = key
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 2, random();

INSERT INTO usage_usageday (team_id, day, model, source, key_id, member_id, jobs, prompt_tokens,
    completion_tokens)
SELECT team_id, hour::date, model, source, key_id, member_id, sum(jobs), sum(prompt_tokens),
    sum(completion_tokens)
FROM usage_usagehour GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 2, random();

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


def pages(jobs: int, rounds: int) -> dict[str, Any]:
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
    found = {
        name: _time(name, lambda path=path: _get(client, path), rounds)
        for name, path in (
            ("usage, 30 days", "/teams/usage"),
            ("usage, 90 days", f"/teams/usage?from={ninety}&to={today}"),
            ("limits", "/teams/limits"),
            ("keys", "/teams/keys"),
            ("CSV, 7 days", f"/teams/usage.csv?from={_days_ago(6)}&to={today}"),
        )
    }
    return {"jobs": jobs, "pages": found}


def _days_ago(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86_400))


def _get(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, response.status_code


def _time(name: str, act: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Milliseconds a call; ``cpu_ms`` are of this process' processor alone, which a busy machine
    doesn't change."""
    act()
    began = time.process_time()
    samples = sorted(_seconds(act) * 1000 for _ in range(rounds))
    own = (time.process_time() - began) / rounds * 1000
    found = {
        "p50_ms": statistics.median(samples),
        "p95_ms": samples[int(rounds * 0.95)],
        "cpu_ms": own,
    }
    print(
        f"{name:<36}{found['p50_ms']:>10.1f} ms p50{found['p95_ms']:>9.1f} ms p95"
        f"{own:>9.1f} ms of the portal's processor",
        flush=True,
    )
    return found


def _seconds(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usage")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--results", type=Path, help="a file to write the figures to, as JSON")
    given = parser.parse_args()
    if connection.vendor != "postgresql":
        print("The pages are timed on PostgreSQL: python -m tests.postgres -- python -m "
              "benchmarks.usage", file=sys.stderr)  # fmt: skip
        return 1
    valkey = environment.Valkey(environment.ROOT)
    valkey.start()
    setup_test_environment()
    made = setup_databases(verbosity=0, interactive=False)
    try:
        found = pages(given.jobs, given.rounds)
    finally:
        teardown_databases(made, verbosity=0)
        valkey.stop()
    if given.results:
        given.results.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
