"""Teams as such: one's list of them, a new one, settings, the log."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal.accounts.models import User
from portal.accounts.selectors import signed_in
from portal.teams import lifecycle
from portal.teams.errors import LastOwner, NotAllowed, Refused
from portal.teams.forms import DeleteForm, NameForm, TransferForm
from portal.teams.log import log_of
from portal.teams.members import role_in, transfer_ownership
from portal.teams.models import Team
from portal.teams.names import ROLE_NAMES
from portal.teams.rules import DELETE, READ_LOG, RENAME, TRANSFER, allows
from portal.teams.selectors import (
    SESSION_TEAM,
    current_team,
    deleted_teams_of,
    members_of,
    memberships_of,
)

LISTED = 200


@never_cache
@login_required
@require_GET
def all_teams(request: HttpRequest) -> HttpResponse:
    """The viewer's teams, and those that the viewer deleted and can bring back."""
    user = signed_in(request)
    rows = [(each.team, ROLE_NAMES[each.role]) for each in memberships_of(user)[:LISTED]]
    page = {"rows": rows, "current": current_team(request), "deleted": deleted_teams_of(user)}
    return render(request, "teams/all.html", page)


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
def new_team(request: HttpRequest) -> HttpResponse:
    form = NameForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            team = lifecycle.create_team(name=form.cleaned_data["name"], user=signed_in(request))
            request.session[SESSION_TEAM] = str(team.pk)
            return redirect("teams:members")
        except Refused as refused:
            form.refuse(refused)
    status = 422 if form.is_bound else 200
    return render(request, "teams/new.html", {"form": form}, status=status)


@never_cache
@login_required
@require_GET
def settings_page(request: HttpRequest) -> HttpResponse:
    return _settings(request, signed_in(request), current_team(request))


def _settings(
    request: HttpRequest, user: User, team: Team, status: int = 200, **forms: object
) -> HttpResponse:
    """``forms`` are those that were just refused, in the place of fresh ones."""
    role = role_in(team, user)
    shared = team.kind == Team.Kind.SHARED
    page = {
        "team": team,
        "shared": shared,
        "role": ROLE_NAMES[role],
        "me": members_of(team, viewer=user).filter(user=user).first(),
        "rename": NameForm(initial={"name": team.name}) if allows(role, RENAME) else None,
        "transfer": TransferForm(team, user.pk) if shared and allows(role, TRANSFER) else None,
        "delete": DeleteForm(team) if shared and allows(role, DELETE) else None,
    }
    return render(request, "teams/settings.html", page | forms, status=status)


@login_required
@require_POST
def rename(request: HttpRequest) -> HttpResponse:
    user, team = signed_in(request), current_team(request)
    form = NameForm(request.POST)
    if form.is_valid():
        try:
            lifecycle.rename_team(team=team, name=form.cleaned_data["name"], actor=user)
            return redirect("teams:settings")
        except Refused as refused:
            form.refuse(refused)
        except NotAllowed:
            raise Http404 from None
    return _settings(request, user, team, 422, rename=form)


@login_required
@require_POST
def transfer(request: HttpRequest) -> HttpResponse:
    user, team = signed_in(request), current_team(request)
    form = TransferForm(team, user.pk, request.POST)
    if not form.is_valid():
        return _settings(request, user, team, 422, transfer=form)
    heir = form.heir
    assert heir is not None
    try:
        transfer_ownership(team=team, to=heir, actor=user)
    except NotAllowed:
        raise Http404 from None
    except LastOwner as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("%(email)s owns the team now.") % {"email": heir.user.email})
    return redirect("teams:settings")


@login_required
@require_POST
def delete(request: HttpRequest) -> HttpResponse:
    user, team = signed_in(request), current_team(request)
    if team.kind != Team.Kind.SHARED or not allows(role_in(team, user), DELETE):
        raise Http404
    form = DeleteForm(team, request.POST)
    if not form.is_valid():
        return _settings(request, user, team, 422, delete=form)
    try:
        until = lifecycle.delete_team(team=team, actor=user)
    except NotAllowed:
        raise Http404 from None
    said = {"team": team.name, "date": date_format(until, "DATE_FORMAT")}
    text = _("%(team)s is deleted. You can bring it back until %(date)s.")
    messages.success(request, text % said)
    return redirect("teams:all")


@login_required
@require_POST
def restore(request: HttpRequest, team_id: uuid.UUID) -> HttpResponse:
    user = signed_in(request)
    team = deleted_teams_of(user).filter(pk=team_id).first()
    if team is None:
        raise Http404
    try:
        lifecycle.restore_team(team=team, actor=user)
    except NotAllowed:
        raise Http404 from None
    messages.success(request, _("%(team)s is back.") % {"team": team.name})
    return redirect("teams:all")


@never_cache
@login_required
@require_GET
def log(request: HttpRequest) -> HttpResponse:
    user, team = signed_in(request), current_team(request)
    if not allows(role_in(team, user), READ_LOG):
        raise Http404
    before = request.GET.get("before", "")
    number = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None
    page = log_of(team, viewer=user, before=number)
    return render(request, "teams/log.html", {"team": team, "page": page, "before": number})
