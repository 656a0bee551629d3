"""The apps that one person ran."""

from __future__ import annotations

from portal.accounts.export import Rows, section
from portal.accounts.models import User
from portal.gallery.models import AppRun


@section("app_runs")
def app_runs(user: User) -> Rows:
    ran = AppRun.objects.filter(user=user).select_related("version__app", "team")
    for run in ran.order_by("created_at").iterator():
        yield {
            "id": run.pk,
            "app": str(run.version),
            "team": run.team.name,
            "inputs": run.inputs,
            "at": run.created_at,
        }
