"""A budget holds whatever runs at once, and a job is booked once however often it is reported."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from inference_workers.contract import Usage
from portal.accounts.models import User
from portal.teams.keys import Terms, create_key
from portal.teams.models import Team
from portal.usage import policy
from portal.usage.acting import Acting, act
from portal.usage.models import (
    NO_KEY,
    Budget,
    Reservation,
    RollUp,
    UsageDay,
    UsageHour,
    UsageMonth,
)
from portal.usage.selectors import hours, key_standing, standing
from portal.usage.services import (
    OverBudget,
    check_budget,
    release,
    reserve,
    set_budget,
    settle,
)


def reserve_one(team: Team, tokens: int = 100) -> str | None:
    job = uuid.uuid4().hex
    try:
        reserve(team=team, job_id=job, tokens=tokens, model="echo", source="playground")
    except OverBudget:
        return None
    return job


def in_parallel(work: object, times: int) -> list[object]:
    def run(_: int) -> object:
        try:
            return work()  # type: ignore[operator]
        finally:
            act(None)
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(run, range(times)))


def test_a_team_without_a_budget_has_no_limit(team: Team) -> None:
    assert reserve_one(team, 10**12)


def test_the_last_token_fits_and_one_more_does_not(team: Team) -> None:
    set_budget(team=team, monthly_tokens=100)
    with pytest.raises(OverBudget) as caught:
        reserve(team=team, job_id=uuid.uuid4().hex, tokens=101)
    assert (caught.value.needed, caught.value.left) == (101, 100)
    assert caught.value.retry_after > 0
    assert not Reservation.objects.exists()
    assert reserve_one(team, 100)
    assert reserve_one(team, 1) is None


def test_settling_gives_back_what_was_not_used(team: Team) -> None:
    set_budget(team=team, monthly_tokens=100)
    job = reserve_one(team, 100)
    assert job
    assert settle(job_id=job, usage=Usage(prompt_tokens=10, completion_tokens=20))
    month = standing(team)
    assert (month.spent, month.reserved, month.left) == (30, 0, 70)


def test_settling_twice_bills_once(team: Team) -> None:
    job = reserve_one(team)
    assert job
    usage = Usage(prompt_tokens=10, completion_tokens=20)
    assert settle(job_id=job, usage=usage)
    assert not settle(job_id=job, usage=usage)
    row = UsageHour.objects.get()
    assert (row.jobs, row.prompt_tokens, row.completion_tokens) == (1, 10, 20)
    assert (row.model, row.source) == ("echo", "playground")


def test_reserving_twice_holds_once(team: Team) -> None:
    set_budget(team=team, monthly_tokens=100)
    job = uuid.uuid4().hex
    for _ in range(2):
        reserve(team=team, job_id=job, tokens=60)
    assert standing(team).reserved == 60


def test_a_released_reservation_costs_nothing(team: Team) -> None:
    job = reserve_one(team)
    assert job
    assert release(job_id=job)
    assert not release(job_id=job)
    assert not settle(job_id=job, usage=Usage(prompt_tokens=5))
    assert not UsageHour.objects.exists()


def test_last_month_is_forgotten(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    set_budget(team=team, monthly_tokens=100)
    with monkeypatch.context() as then:
        then.setattr(timezone, "now", lambda: datetime(2020, 1, 31, 23, 59, tzinfo=UTC))
        job = reserve_one(team)
    assert job
    settle(job_id=job, usage=Usage(prompt_tokens=100))
    assert standing(team).spent == 0
    assert UsageHour.objects.get().hour == datetime(2020, 1, 31, 23, tzinfo=UTC)
    assert reserve_one(team, 100)


def test_one_teams_spending_is_not_anothers(team: Team, outsider: User) -> None:
    set_budget(team=team, monthly_tokens=100)
    other = outsider.memberships.get().team
    reserve_one(other, 5000)
    assert standing(team).left == 100
    assert not hours(other, viewer=team.memberships.get().user, since=datetime.now(UTC)).exists()


@pytest.mark.django_db(transaction=True)
def test_forty_at_once_share_a_budget_for_ten(team: Team) -> None:
    Budget.objects.create(team=team, monthly_tokens=1000)
    won = [job for job in in_parallel(lambda: reserve_one(team), 40) if job]
    assert len(won) == 10
    assert standing(team).left == 0


@pytest.mark.django_db(transaction=True)
def test_reserving_and_settling_at_once_never_passes_the_limit(team: Team) -> None:
    """Each job uses half of what it held, so the tenth-and-a-half fits, and nothing else."""
    Budget.objects.create(team=team, monthly_tokens=1000)

    def one() -> bool:
        job = reserve_one(team)
        return bool(job and settle(job_id=job, usage=Usage(completion_tokens=50)))

    in_parallel(one, 40)
    while one():  # some were refused while others held more than they used
        pass
    month = standing(team)
    assert month.reserved == 0
    assert 900 < month.spent <= 1000


@pytest.mark.django_db(transaction=True)
def test_settling_at_once_adds_up_and_bills_once(team: Team) -> None:
    jobs = [reserve_one(team) for _ in range(8)]
    usage = Usage(prompt_tokens=3, completion_tokens=4)
    thrice = iter([job for job in jobs for _ in range(3)])  # neighbours race
    in_parallel(lambda: settle(job_id=next(thrice) or "", usage=usage), 24)
    row = UsageHour.objects.get()
    assert (row.jobs, row.prompt_tokens, row.completion_tokens) == (8, 24, 32)


@pytest.mark.django_db(transaction=True)
def test_two_hundred_at_once_pass_neither_the_teams_nor_the_keys_budget(
    team: Team, member: User
) -> None:
    """Two keys, one of which may spend less, race for a budget of 30 jobs; some jobs end meanwhile
    and are reported twice, some are given back."""
    small, _ = create_key(team=team, user=member, name="small", terms=Terms(monthly_tokens=1050))
    large, _ = create_key(team=team, user=member, name="large")
    set_budget(team=team, monthly_tokens=3099)
    turns = itertools.count()

    def one() -> str | None:
        turn = next(turns)
        act(Acting(small if turn % 2 else large))
        job = reserve_one(team)
        if job and turn % 3 == 0:
            for _ in range(2):
                settle(job_id=job, usage=Usage(prompt_tokens=40, completion_tokens=60))
        elif job and turn % 5 == 0:
            release(job_id=job)
            assert not settle(job_id=job, usage=Usage(prompt_tokens=1))
        return job

    in_parallel(one, 200)
    month, key = standing(team), key_standing(small)
    assert month.spent + month.reserved == 3000
    assert key.spent + key.reserved <= 1000
    assert_sums_agree(team)


def assert_sums_agree(team: Team) -> None:
    """The running sums are what the rows add up to, for the team and for each key."""
    for month in UsageMonth.objects.filter(team=team):
        rows = {} if month.key_id == NO_KEY else {"key_id": month.key_id}
        held = Reservation.objects.filter(team=team, **rows)
        used = UsageHour.objects.filter(team=team, **rows)
        assert month.reserved == sum(row.tokens for row in held)
        assert month.spent == sum(row.prompt_tokens + row.completion_tokens for row in used)


def test_a_key_of_another_team_is_not_billed(team: Team, outsider: User) -> None:
    other = outsider.memberships.get().team
    act(Acting(create_key(team=other, user=outsider, name="theirs")[0]))
    try:
        reserve_one(team)
    finally:
        act(None)
    assert Reservation.objects.get().key_id == NO_KEY


def test_usage_is_rolled_up_by_hour_model_app_key_and_member(team: Team, member: User) -> None:
    key, _ = create_key(team=team, user=member, name="x")
    for version in (1, 2):
        act(Acting(key))
        job = uuid.uuid4()
        source = f"app:translate@{version}"
        reserve(team=team, job_id=job, tokens=9, model="echo", source=source, user=member)
        act(None)
        settle(job_id=job, usage=Usage(prompt_tokens=3, completion_tokens=4))
    job = uuid.uuid4()
    reserve(team=team, job_id=job, tokens=9, model="echo", source="app:translate@2", user=member)
    settle(job_id=job, usage=Usage(prompt_tokens=1))
    with_key, without = UsageHour.objects.order_by("-jobs")
    assert (with_key.source, with_key.key_id, with_key.member_id) == (
        "app:translate", key.pk, member.pk,
    )  # fmt: skip
    assert (with_key.jobs, with_key.prompt_tokens, with_key.completion_tokens) == (2, 6, 8)
    assert (without.key_id, without.member_id, without.jobs) == (NO_KEY, member.pk, 1)
    for hour, day in zip((with_key, without), UsageDay.objects.order_by("-jobs"), strict=True):
        assert day.day == hour.hour.date()
        assert {f.name: getattr(day, f.name) for f in RollUp._meta.fields} == {
            f.name: getattr(hour, f.name) for f in RollUp._meta.fields
        }


def test_what_a_request_costs_does_not_grow_with_what_was_used(
    team: Team, member: User, django_assert_num_queries: Any
) -> None:
    set_budget(team=team, monthly_tokens=10**9)
    for _ in range(20):
        settle(job_id=reserve_one(team) or "", usage=Usage(prompt_tokens=1))
    with django_assert_num_queries(1):  # the limit and the months together
        check_budget(team=team, tokens=1)
    with django_assert_num_queries(6):  # savepoint and release among them
        reserve_one(team)


@pytest.mark.django_db(transaction=True)
def test_an_old_database_gets_its_sums() -> None:
    """Migrating takes over what had been spent and held before there were running sums."""
    executor = MigrationExecutor(connection)
    latest = executor.loader.graph.leaf_nodes()
    old = executor.migrate([("usage", "0001_initial")])
    try:
        team = old.apps.get_model("teams", "Team").objects.create(name="Old", kind="shared")
        hour = datetime(2026, 3, 31, 23, tzinfo=UTC)
        for model in ("a", "b"):
            old.apps.get_model("usage", "UsageHour").objects.create(
                team=team, hour=hour, model=model, source="api", prompt_tokens=5
            )
        old.apps.get_model("usage", "Reservation").objects.create(
            job_id=uuid.uuid4(), team=team, tokens=9
        )
    finally:
        MigrationExecutor(connection).migrate(latest)
    days = UsageDay.objects.filter(team_id=team.pk).values_list("day", "model", "prompt_tokens")
    assert sorted(days) == [(hour.date(), "a", 5), (hour.date(), "b", 5)]
    sums = UsageMonth.objects.filter(team_id=team.pk).values_list("month", "spent", "reserved")
    assert (date(2026, 3, 1), 10, 0) in sums
    assert (policy.month_of(timezone.now()).date(), 0, 9) in sums


tokens = st.integers(0, 10**9)


@given(st.none() | tokens, tokens, tokens, tokens)
def test_what_is_allowed_never_passes_the_limit(
    limit: int | None, spent: int, reserved: int, wanted: int
) -> None:
    month = policy.Standing(limit, spent, reserved)
    assert month.allows(wanted) == (
        limit is None or wanted == 0 or spent + reserved + wanted <= limit
    )


@given(st.datetimes(timezones=st.just(UTC)))
def test_the_next_month_is_at_most_31_days_away(moment: datetime) -> None:
    if moment.year < 9999:
        seconds = policy.seconds_to_next_month(moment)
        assert 1 <= seconds <= 31 * 86400
    assert policy.month_of(moment) <= policy.hour_of(moment) <= moment
