"""Usage by day, model, app, key and member, as a page and as CSV; budgets and retention are set."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.catalogue.services import BadModel, set_price
from portal.teams.keys import create_key
from portal.teams.models import Team
from portal.usage.forms import period_of
from portal.usage.models import NO_KEY, NO_MEMBER, UsageDay
from portal.usage.reports import SHOWN, Period, Report, report
from portal.usage.selectors import standing

TODAY = date(2026, 3, 31)
MARCH = Period(date(2026, 3, 1), TODAY)


def used(team: Team, *, on: date = date(2026, 3, 14), **given: Any) -> None:
    fields = {"model": "echo", "source": "api", "jobs": 1, "prompt_tokens": 10}
    UsageDay.objects.create(team=team, day=on, **(fields | given))


def rows(found: Report | None, name: str) -> dict[str, int]:
    assert found is not None
    return {row.label: row.sums.tokens for row in found.by[name]}


def page_of(user: User, team: Team) -> Client:
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    client.post("/teams/choose", {"team": str(team.pk)})
    return client


def test_it_adds_up_in_every_way(team: Team, member: User) -> None:
    key, _ = create_key(team=team, user=member, name="ci")
    used(team, key_id=key.pk, member_id=member.pk, completion_tokens=5)
    used(team, source="app:translate", member_id=member.pk, prompt_tokens=20)
    used(team, model="other", source="playground", member_id=999, prompt_tokens=40)
    used(team, key_id=Team().pk, member_id=NO_MEMBER, prompt_tokens=80)
    found = report(team, viewer=member, period=MARCH)
    assert rows(found, "model") == {"echo": 115, "other": 40}
    assert rows(found, "source") == {"API": 95, "translate": 20, "Playground": 40}
    assert rows(found, "key_id") == {
        str(key): 15, "no key: pages": 60, "a key that was deleted": 80,
    }  # fmt: skip
    assert rows(found, "member_id") == {
        str(member): 35, "somebody who is gone": 40, "visitors": 80,
    }  # fmt: skip
    assert found is not None
    assert (found.total.jobs, found.total.tokens) == (4, 155)
    assert dict(found.days)[date(2026, 3, 14)].tokens == 155
    assert len(found.days) == 31


def test_a_period_has_both_its_ends_and_nothing_beyond(team: Team, member: User) -> None:
    for on in (date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 31), date(2026, 4, 1)):
        used(team, on=on)
    found = report(team, viewer=member, period=MARCH)
    assert found is not None
    assert found.total.tokens == 20


def test_the_small_ones_are_added_up(team: Team, member: User) -> None:
    for n in range(SHOWN + 5):
        used(team, source=f"app:{n}", prompt_tokens=1000 - n)
    found = rows(report(team, viewer=member, period=MARCH), "source")
    assert len(found) == SHOWN + 1
    assert found["all others"] == sum(1000 - n for n in range(SHOWN, SHOWN + 5))


def test_costs_are_shown_where_there_is_a_price(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    set_price(model=echo, price_input=Decimal("0.5"), price_output=Decimal(2))
    used(team, prompt_tokens=3_000_000, completion_tokens=1_000_000)
    used(team, model="free", prompt_tokens=7)
    found = report(team, viewer=member, period=MARCH)
    assert found is not None
    assert found.total.cost == Decimal("3.5")
    assert {row.label: row.sums.cost for row in found.by["model"]} == {
        "echo": Decimal("3.5"), "free": None,
    }  # fmt: skip


def test_outsiders_see_nothing_and_other_teams_stay_out(
    team: Team, outsider: User, member: User
) -> None:
    used(outsider.memberships.get().team, on=timezone.now().date(), prompt_tokens=500)
    used(team, on=timezone.now().date(), prompt_tokens=7)
    assert report(team, viewer=outsider, period=MARCH) is None
    page = page_of(outsider, team)  # which refuses to choose the team
    assert page.get("/teams/usage").context["report"].total.tokens == 500
    assert page_of(member, team).get("/teams/usage").context["report"].total.tokens == 7


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("", ""), ("x", "y"), ("2026-03-02", "2026-03-01"), ("2001-01-01", "2026-03-01"),
        ("2026-02-30", "2026-03-01"), ("0001-01-01", "9999-12-31"),
    ],
)  # fmt: skip
def test_no_address_breaks_the_page(first: str, last: str) -> None:
    assert period_of(first, last, today=TODAY) == Period(date(2026, 3, 2), TODAY)


def test_the_last_day_there_is_can_be_asked_for(team: Team, member: User) -> None:
    for day in ("9999-12-31", "0001-01-01"):
        answer = page_of(member, team).get(f"/teams/usage?from={day}&to={day}")
        assert answer.status_code == 200


def test_the_csv_has_a_row_for_each_combination_and_no_formula(team: Team, member: User) -> None:
    key, _ = create_key(team=team, user=member, name="=cmd()")
    today = timezone.now().date()
    used(team, on=today, key_id=key.pk, member_id=member.pk, completion_tokens=3)
    used(team, on=today, source="app:translate", key_id=NO_KEY)
    answer = page_of(member, team).get("/teams/usage.csv")
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="usage-')
    table = list(csv.DictReader(StringIO(answer.content.decode())))
    assert [row["app"] for row in table] == ["API", "translate"]
    assert table[0] == {
        "day": today.isoformat(), "model": "echo", "app": "API", "key": f"'{key}",
        "member": str(member), "jobs": "1", "prompt_tokens": "10", "completion_tokens": "3",
        "cost": "",
    }  # fmt: skip


def test_the_page_costs_the_same_however_much_was_used(
    team: Team, member: User, django_assert_max_num_queries: Any
) -> None:
    for n in range(60):
        on = timezone.now().date() - timedelta(days=n // 3)
        used(team, on=on, model=f"m{n}", source=f"app:{n}", member_id=n)
    client = page_of(member, team)
    with django_assert_max_num_queries(20):
        assert client.get("/teams/usage").status_code == 200


class TestLimits:
    def test_an_owner_sets_a_budget_and_lifts_it(self, team: Team, owner: User) -> None:
        client = page_of(owner, team)
        client.post("/teams/limits/budget", {"monthly_tokens": "5000"})
        assert standing(team).limit == 5000
        assert LogEntry.objects.filter(object_pk=str(team.pk), actor=owner).exists()
        client.post("/teams/limits/budget", {"monthly_tokens": ""})
        assert standing(team).limit is None
        assert client.post("/teams/limits/budget", {"monthly_tokens": "-5"}).status_code == 422

    @pytest.mark.parametrize(
        ("keep", "days", "kept"), [("ever", "", None), ("days", "7", 7), ("none", "", 0)]
    )
    def test_an_owner_says_how_long_things_are_kept(
        self, team: Team, owner: User, keep: str, days: str, kept: int | None
    ) -> None:
        client = page_of(owner, team)
        client.post("/teams/limits/retention", {"keep": keep, "days": days})
        team.refresh_from_db()
        assert team.retention_days == kept
        assert client.get("/teams/limits").context["retention"].initial["keep"] == keep

    @pytest.mark.parametrize("days", ["", "0", "-1", "99999", "x"])
    def test_days_are_a_number_that_makes_sense(self, team: Team, owner: User, days: str) -> None:
        answer = page_of(owner, team).post(
            "/teams/limits/retention", {"keep": "days", "days": days}
        )
        assert answer.status_code == 422
        team.refresh_from_db()
        assert team.retention_days is None

    def test_a_developer_looks_and_sets_nothing(self, team: Team, member: User) -> None:
        client = page_of(member, team)
        page = client.get("/teams/limits")
        assert page.status_code == 200
        assert page.context["budget"] is page.context["retention"] is None
        assert client.post("/teams/limits/budget", {"monthly_tokens": "1"}).status_code == 404
        assert client.post("/teams/limits/retention", {"keep": "none"}).status_code == 404


class TestPrices:
    def test_the_console_sets_and_takes_back_a_price(self, echo: CatalogueModel) -> None:
        out = StringIO()
        call_command("models", "price", "echo", "--input", "0.25", "--output", "1", stdout=out)
        echo.refresh_from_db()
        assert (echo.price_input, echo.price_output) == (Decimal("0.25"), Decimal(1))
        assert "USD" in out.getvalue()
        call_command("models", "price", "echo", stdout=out)
        echo.refresh_from_db()
        assert echo.price_input is None

    @pytest.mark.parametrize("price", ["x", "-1", "NaN", "Infinity", "1e9"])
    def test_what_is_no_price_is_refused(self, echo: CatalogueModel, price: str) -> None:
        with pytest.raises(CommandError):
            call_command("models", "price", "echo", f"--input={price}", stdout=StringIO())

    def test_a_change_is_audited(self, echo: CatalogueModel, operator: User) -> None:
        set_price(model=echo, price_input=Decimal(1), price_output=None, actor=operator)
        assert LogEntry.objects.filter(object_pk="echo", actor=operator).exists()
        with pytest.raises(BadModel):
            set_price(model=echo, price_input=Decimal(-1), price_output=None)
