"""What people fill in about limits and periods."""

from __future__ import annotations

from datetime import date, timedelta

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.teams.forms import HouseForm
from portal.teams.keys import MOST_TOKENS
from portal.teams.services import LONGEST_RETENTION_DAYS
from portal.usage.reports import LONGEST, Period

DEFAULT_DAYS = 30


class BudgetForm(HouseForm):
    monthly_tokens = forms.IntegerField(
        min_value=0,
        max_value=MOST_TOKENS,
        required=False,
        label=_("Tokens a month"),
        widget=forms.NumberInput({"class": "input", "min": 0, "placeholder": _("no limit")}),
    )


class RetentionForm(HouseForm):
    keep = forms.ChoiceField(
        label=_("Keep prompts and answers"),
        choices=[
            ("ever", _("for good")),
            ("days", _("for some days")),
            ("none", _("only until they have been read")),
        ],
        widget=forms.Select({"class": "select"}),
    )
    days = forms.IntegerField(
        min_value=1,
        max_value=LONGEST_RETENTION_DAYS,
        required=False,
        label=_("Days"),
        widget=forms.NumberInput({"class": "input", "min": 1, "max": LONGEST_RETENTION_DAYS}),
    )

    def clean(self) -> None:
        super().clean()
        asked = self.cleaned_data.get("keep") == "days" and "days" not in self.errors
        if asked and not self.cleaned_data.get("days"):
            self.add_error("days", _("Say for how many days."))

    def retention(self) -> int | None:
        """As ``set_retention`` takes it."""
        keep = self.cleaned_data["keep"]
        days: int = self.cleaned_data["days"] or 0
        return {"ever": None, "none": 0}.get(keep, days)

    @staticmethod
    def shown(days: int | None) -> dict[str, object]:
        """The form's initial values."""
        if days is None:
            return {"keep": "ever"}
        return {"keep": "days", "days": days} if days else {"keep": "none"}


def period_of(first: str, last: str, *, today: date) -> Period:
    """The period that a page's address names; the last 30 days for anything that is none."""
    try:
        found = Period(date.fromisoformat(first), date.fromisoformat(last))
    except ValueError:
        found = None
    if found is None or not timedelta() <= found.last - found.first <= LONGEST:
        return Period(today - timedelta(days=DEFAULT_DAYS - 1), today)
    return found


def choices(today: date) -> list[tuple[object, Period]]:
    """Periods that the page offers."""
    month = today.replace(day=1)
    before = month - timedelta(days=1)
    return [
        (_("30 days"), Period(today - timedelta(days=29), today)),
        (_("90 days"), Period(today - timedelta(days=89), today)),
        (_("this month"), Period(month, today)),
        (_("last month"), Period(before.replace(day=1), before)),
    ]
