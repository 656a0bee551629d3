"""Which team one acts for. Its pages are in the other modules of this name."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from portal.accounts.models import User
from portal.teams.selectors import SESSION_TEAM, team_for


@login_required
@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    """Act for another of one's teams from now on."""
    team = team_for(_user(request), request.POST.get("team", ""))
    if team is None:
        raise Http404
    request.session[SESSION_TEAM] = str(team.pk)
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, {request.get_host()}):
        return redirect(target)
    return redirect("home")


@login_required
@require_GET
def home(request: HttpRequest) -> HttpResponse:
    return redirect("teams:keys")


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User), "behind login_required"
    return request.user
