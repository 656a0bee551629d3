"""The pages of API keys. A secret is in the one answer that made it, and nowhere else.

Context of ``teams/keys.html``: team, keys, form, may_manage; of ``teams/key.html``: team, key, form
(none where one may not change it), rotate (none where one may not), may_end. Both: plaintext (a new
secret, once) and models (some that it may ask).
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts.models import User
from portal.teams.key_forms import KeyForm, RotateForm
from portal.teams.keys import (
    KEY_LIMIT,
    KeyRefused,
    create_key,
    revoke_key,
    rotate_key,
    update_key,
)
from portal.teams.models import ApiKey, Team
from portal.teams.rules import MANAGE_KEYS, MANAGE_MEMBERS, may
from portal.teams.selectors import current_team, keys_of, may_end, may_renew
from portal.teams.views import _user

LISTED = KEY_LIMIT + 20
"""All live keys, and a few of those that were revoked."""


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
def keys(request: HttpRequest) -> HttpResponse:
    """The current team's keys, and a form for a new one."""
    user, team = _user(request), current_team(request)
    admin = may(user, MANAGE_MEMBERS, team)
    form = KeyForm(request.POST or None, admin=admin)
    made: dict[str, object] = {}
    status = 200
    if request.method == "POST":
        if not may(user, MANAGE_KEYS, team):
            raise Http404
        status = 422
        if form.is_valid():
            try:
                name = form.cleaned_data["name"]
                key, plaintext = create_key(team=team, user=user, name=name, terms=form.terms())
                made = _secret(key, plaintext)
                form, status = KeyForm(admin=admin), 201
            except KeyRefused as refusal:
                form.take(refusal)
    page = {
        "team": team,
        "keys": keys_of(team, viewer=user)[:LISTED],
        "form": form,
        "may_manage": may(user, MANAGE_KEYS, team),
    }
    return render(request, "teams/keys.html", page | made, status=status)


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
def key(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    """One key: what it may do, and its ends."""
    user, team = _user(request), current_team(request)
    found = _find(user, team, key_id)
    if request.method == "GET":
        return _page(request, user, found)
    if not may_end(found, viewer=user):
        raise Http404
    form = KeyForm(request.POST, admin=may(user, MANAGE_MEMBERS, team), key=found)
    if form.is_valid():
        try:
            name = form.cleaned_data["name"]
            if update_key(key=found, name=name, terms=form.terms(), actor=user):
                messages.success(request, _("Saved. It holds from the key's next request on."))
            return redirect("teams:key", found.pk)
        except KeyRefused as refusal:
            form.take(refusal)
    return _page(request, user, found, 422, form=form)


@never_cache
@login_required
@require_POST
def rotate(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    """A new secret for one's own key."""
    user, team = _user(request), current_team(request)
    found = _find(user, team, key_id)
    if not may_renew(found, viewer=user):
        raise Http404
    form = RotateForm(request.POST)
    if not form.is_valid():
        return _page(request, user, found, 422, rotate=form)
    plaintext = rotate_key(key=found, grace=form.duration(), actor=user)
    if plaintext is None:
        messages.error(request, _("The key was changed meanwhile. Look at it again."))
        return redirect("teams:key", found.pk)
    found.refresh_from_db()
    return _page(request, user, found, 201, **_secret(found, plaintext))


@login_required
@require_POST
def revoke(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    """End a key: one's own, or any of the team's for those who manage its members."""
    user, team = _user(request), current_team(request)
    found = _find(user, team, key_id)
    if not may_end(found, viewer=user):
        raise Http404
    revoke_key(key=found, actor=user)
    return redirect("teams:keys")


def _find(user: User, team: Team, key_id: uuid.UUID) -> ApiKey:
    found = keys_of(team, viewer=user).select_related("team").filter(pk=key_id).first()
    if found is None:
        raise Http404
    return found


def _page(
    request: HttpRequest, user: User, key: ApiKey, status: int = 200, **more: object
) -> HttpResponse:
    """``more`` has forms that were just refused, in the place of fresh ones."""
    live = key.revoked_at is None
    ends = live and may_end(key, viewer=user)
    admin = ends and may(user, MANAGE_MEMBERS, key.team)
    page = {
        "team": key.team,
        "key": key,
        "form": KeyForm(admin=admin, key=key) if ends else None,
        "rotate": RotateForm() if live and may_renew(key, viewer=user) else None,
        "may_end": ends,
    }
    return render(request, "teams/key.html", page | more, status=status)


def _secret(key: ApiKey, plaintext: str) -> dict[str, object]:
    return {
        "plaintext": plaintext,
        "models": key.allowed_models or [settings.LLMASOS.default_model],
    }
