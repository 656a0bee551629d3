"""The team's pages: API keys, and which team one acts for."""

from __future__ import annotations

import uuid

from django import forms
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal.accounts.models import User
from portal.teams.models import ApiKey, Team
from portal.teams.rules import MANAGE_KEYS, MANAGE_MEMBERS, may
from portal.teams.selectors import SESSION_TEAM, current_team, keys_of, team_for
from portal.teams.services import KeyRefused, create_key, revoke_key


class KeyForm(forms.Form):
    name = forms.CharField(max_length=120)


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
def keys(request: HttpRequest) -> HttpResponse:
    """The current team's keys. A new key's plaintext is in this one answer and nowhere else."""
    user, team = _user(request), current_team(request)
    form = KeyForm(request.POST or None)
    plaintext, status = None, 200
    if request.method == "POST":
        if not may(user, MANAGE_KEYS, team):
            raise Http404
        status = 422
        if form.is_valid():
            try:
                _key, plaintext = create_key(team=team, user=user, name=form.cleaned_data["name"])
                form, status = KeyForm(), 201
            except KeyRefused as refusal:
                form.add_error("name", str(refusal))
    return render(request, "teams/keys.html", _page(user, team, form, plaintext), status=status)


def _page(user: User, team: Team, form: KeyForm, plaintext: str | None) -> dict[str, object]:
    """What ``teams/keys.html`` shows."""
    return {
        "team": team,
        "keys": keys_of(team, viewer=user),
        "form": form,
        "plaintext": plaintext,
        "may_manage": may(user, MANAGE_KEYS, team),
    }


@login_required
@require_POST
def revoke(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    """End a key: one's own, or any of the team's for those who manage its members."""
    user, team = _user(request), current_team(request)
    key = keys_of(team, viewer=user).filter(pk=key_id).first()
    if key is None or not _may_revoke(user, team, key):
        raise Http404
    revoke_key(key=key, actor=user)
    return redirect("teams:keys")


def _may_revoke(user: User, team: Team, key: ApiKey) -> bool:
    if may(user, MANAGE_MEMBERS, team):
        return True
    return key.created_by_id == user.pk and may(user, MANAGE_KEYS, team)


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
