"""The team's pages about usage and limits.

Context of ``usage/usage.html``: team, report (``reports.Report``), periods (label, Period, chosen),
sections (title, dimension, rows), month (``policy.Standing``), currency (empty where nothing has a
price), charts (as JSON for ``static/src/usage``). Of ``usage/limits.html``: team, month, budget and
retention (forms; none where one may not), kept (days, 0 or none).
"""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from portal.accounts.models import User
from portal.teams.models import Team
from portal.teams.rules import MANAGE_BUDGET, may
from portal.teams.selectors import current_team
from portal.teams.services import set_retention
from portal.usage import reports
from portal.usage.forms import BudgetForm, RetentionForm, choices, period_of
from portal.usage.reports import Period, Report, TooMuch
from portal.usage.selectors import standing
from portal.usage.services import set_budget

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for the beginning of a formula."""


@never_cache
@login_required
@require_GET
def usage(request: HttpRequest) -> HttpResponse:
    user, team, period = _asked(request)
    found = reports.report(team, viewer=user, period=period)
    if found is None:
        raise Http404
    page = {
        "team": team,
        "report": found,
        "periods": [(name, p, p == period) for name, p in choices(timezone.now().date())],
        "month": standing(team),
        "currency": settings.LLMASOS.currency if found.total.cost is not None else "",
        "charts": _charts(found),
        "sections": [(_names()[name], name, rows) for name, rows in found.by.items()],
    }
    return render(request, "usage/usage.html", page)


def _names() -> dict[str, str]:
    return {
        "model": _("By model"),
        "source": _("By app"),
        "key_id": _("By key"),
        "member_id": _("By member"),
    }


def _charts(found: Report) -> dict[str, Any]:
    return {
        "days": [[day.isoformat(), sums.prompt, sums.completion] for day, sums in found.days],
        "by": {
            name: [[row.label, row.sums.prompt, row.sums.completion] for row in rows]
            for name, rows in found.by.items()
        },
    }


@never_cache
@login_required
@require_GET
def download(request: HttpRequest) -> HttpResponse:
    """The period as CSV, a row for each day and combination."""
    user, team, period = _asked(request)
    try:
        rows = reports.table(team, viewer=user, period=period)
    except TooMuch:
        text = _("This period has more than 100,000 rows. Choose a shorter one.")
        return HttpResponse(text, status=422, content_type="text/plain; charset=utf-8")
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(reports.CSV_HEAD)
    writer.writerows([_cell(value) for value in row] for row in rows)
    name = f"usage-{period.first}-{period.last}.csv"
    return HttpResponse(
        file.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _cell(value: Any) -> Any:
    """Names are people's: one that looks like a formula must not become one."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


@never_cache
@login_required
@require_GET
def limits(request: HttpRequest) -> HttpResponse:
    return _limits(request, _user(request), current_team(request))


def _limits(
    request: HttpRequest, user: User, team: Team, status: int = 200, **forms: object
) -> HttpResponse:
    """``forms`` are those that were just refused, in the place of fresh ones."""
    month, may_set = standing(team), may(user, MANAGE_BUDGET, team)
    fresh: dict[str, object] = {"budget": None, "retention": None}
    if may_set:
        fresh["budget"] = BudgetForm(initial={"monthly_tokens": month.limit})
        fresh["retention"] = RetentionForm(initial=RetentionForm.shown(team.retention_days))
    page = {"team": team, "month": month, "kept": team.retention_days}
    return render(request, "usage/limits.html", page | fresh | forms, status=status)


@login_required
@require_POST
def budget(request: HttpRequest) -> HttpResponse:
    user, team = _manager(request)
    form = BudgetForm(request.POST)
    if not form.is_valid():
        return _limits(request, user, team, 422, budget=form)
    set_budget(team=team, monthly_tokens=form.cleaned_data["monthly_tokens"], actor=user)
    messages.success(request, _("The budget holds from the next request on."))
    return redirect("usage:limits")


@login_required
@require_POST
def retention(request: HttpRequest) -> HttpResponse:
    user, team = _manager(request)
    form = RetentionForm(request.POST)
    if not form.is_valid():
        return _limits(request, user, team, 422, retention=form)
    set_retention(team=team, days=form.retention(), actor=user)
    messages.success(request, _("Saved. What is older goes within minutes."))
    return redirect("usage:limits")


def _manager(request: HttpRequest) -> tuple[User, Team]:
    user, team = _user(request), current_team(request)
    if not may(user, MANAGE_BUDGET, team):
        raise Http404
    return user, team


def _asked(request: HttpRequest) -> tuple[User, Team, Period]:
    first, last = (request.GET.get(name, "") for name in ("from", "to"))
    period = period_of(first, last, today=timezone.now().date())
    return _user(request), current_team(request), period


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User), "behind login_required"
    return request.user
