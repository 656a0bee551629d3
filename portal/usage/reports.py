"""What a team used in a period: by day, model, app, key and member, with costs.

All of it is read from the roll-ups, twice; no query looks at jobs. Costs are today's prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet, Sum
from django.utils.translation import gettext

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.teams.models import ApiKey, Team
from portal.teams.rules import VIEW, may
from portal.usage.models import NO_KEY, NO_MEMBER, UsageDay

DIMENSIONS = ("model", "source", "key_id", "member_id")
SHOWN = 20
"""Rows of a dimension; what is less is added up in one more."""

MILLION = 1_000_000
LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days, UTC; both ends belong to it."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]

    def rows(self, team: Team) -> QuerySet[UsageDay]:
        return UsageDay.objects.filter(team=team, day__gte=self.first, day__lte=self.last)


@dataclass(slots=True)
class Sums:
    """``cost`` is ``None`` where no model has a price."""

    jobs: int = 0
    prompt: int = 0
    completion: int = 0
    cost: Decimal | None = None

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    def add(self, other: Sums) -> None:
        self.jobs += other.jobs
        self.prompt += other.prompt
        self.completion += other.completion
        if other.cost is not None:
            self.cost = (self.cost or Decimal()) + other.cost


@dataclass(frozen=True, slots=True)
class Row:
    """``label`` is what a page calls it."""

    label: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Report:
    period: Period
    total: Sums
    days: list[tuple[date, Sums]]
    by: dict[str, list[Row]] = field(default_factory=dict)


Prices = dict[str, tuple[Decimal | None, Decimal | None]]


def report(team: Team, *, viewer: User | AnonymousUser, period: Period) -> Report | None:
    """``None`` for those who don't belong to the team."""
    if not may(viewer, VIEW, team):
        return None
    rows, prices, total = period.rows(team), _prices(), Sums()
    by_day = _summed(_grouped(rows, "day", "model"), "day", prices)
    for sums in by_day.values():
        total.add(sums)
    found = _grouped(rows, *DIMENSIONS)
    by = {name: _ranked(name, _summed(found, name, prices)) for name in DIMENSIONS}
    days = [(day, by_day.get(day, Sums())) for day in period.days]
    return Report(period, total, days, by)


def _prices() -> Prices:
    rows = CatalogueModel.objects.exclude(price_input=None, price_output=None)
    return {
        pk: (into, out) for pk, into, out in rows.values_list("pk", "price_input", "price_output")
    }


def _grouped(rows: QuerySet[UsageDay], *names: str) -> list[dict[str, Any]]:
    amounts = {n: Sum(n) for n in ("jobs", "prompt_tokens", "completion_tokens")}
    return list(rows.order_by().values(*names).annotate(**amounts))


def _summed(rows: list[dict[str, Any]], name: str, prices: Prices) -> dict[Any, Sums]:
    """By ``name``, of rows that are by model, too, because each has its price."""
    found: dict[Any, Sums] = {}
    for row in rows:
        found.setdefault(row[name], Sums()).add(_sums(row, prices))
    return found


def _sums(row: dict[str, Any], prices: Prices) -> Sums:
    prompt, completion = row["prompt_tokens"], row["completion_tokens"]
    return Sums(row["jobs"], prompt, completion, cost_of(prompt, completion, prices, row["model"]))


def cost_of(prompt: int, completion: int, prices: Prices, model: str) -> Decimal | None:
    """In the house's currency; ``None`` for a model without a price."""
    if model not in prices:
        return None
    into, out = prices[model]
    return (prompt * (into or 0) + completion * (out or 0)) / Decimal(MILLION)


def _ranked(name: str, found: dict[Any, Sums]) -> list[Row]:
    """The largest first, by what they are called; the small ones together."""
    ordered = sorted(found.items(), key=lambda item: item[1].tokens, reverse=True)
    labels = labels_of(name, [value for value, _ in ordered[:SHOWN]])
    rows = [Row(labels[value], sums) for value, sums in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        rest = Sums()
        for _, sums in ordered[SHOWN:]:
            rest.add(sums)
        rows.append(Row(gettext("all others"), rest))
    return rows


def labels_of(name: str, values: Sequence[Any]) -> dict[Any, str]:
    """What the values of a dimension are called, whether or not they still exist."""
    if name == "key_id":
        gone = dict.fromkeys(values, gettext("a key that was deleted"))
        keys = ApiKey.objects.in_bulk([value for value in values if value != NO_KEY])
        return gone | {NO_KEY: gettext("no key: pages")} | {k: str(v) for k, v in keys.items()}
    if name == "member_id":
        gone = dict.fromkeys(values, gettext("somebody who is gone"))
        users = User.objects.in_bulk([value for value in values if value != NO_MEMBER])
        return gone | {NO_MEMBER: gettext("visitors")} | {k: str(v) for k, v in users.items()}
    if name == "source":
        known = {"api": "API", "playground": gettext("Playground")}
        return {value: known.get(value, value.removeprefix("app:")) for value in values}
    return {value: value for value in values}


CSV_HEAD = (
    "day", "model", "app", "key", "member", "jobs", "prompt_tokens", "completion_tokens", "cost",
)  # fmt: skip
CSV_ROWS = 100_000


class TooMuch(Exception):
    """The table would have more than ``CSV_ROWS`` rows."""


def table(team: Team, *, viewer: User | AnonymousUser, period: Period) -> list[tuple[Any, ...]]:
    """A row for each day and combination, as ``CSV_HEAD`` names them. Raises ``TooMuch``."""
    if not may(viewer, VIEW, team):
        return []
    amounts = ("jobs", "prompt_tokens", "completion_tokens")
    by = ("day", *DIMENSIONS)
    rows = list(period.rows(team).order_by(*by).values(*by, *amounts)[: CSV_ROWS + 1])
    if len(rows) > CSV_ROWS:
        raise TooMuch
    prices = _prices()
    labels = {n: labels_of(n, list({row[n] for row in rows})) for n in DIMENSIONS}
    return [
        (
            row["day"].isoformat(),
            *(labels[name][row[name]] for name in DIMENSIONS),
            *(row[name] for name in amounts),
            _sums(row, prices).cost,
        )
        for row in rows
    ]
