"""The team's members: who they are, inviting, roles, removing, and an invitation's own page."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts.models import User
from portal.accounts.selectors import signed_in
from portal.accounts.throttle import throttled
from portal.teams import invitations, members
from portal.teams.errors import LastOwner, NotAllowed, Refused
from portal.teams.forms import InviteForm
from portal.teams.models import Membership, Team
from portal.teams.names import ROLE_NAMES, choices, table
from portal.teams.rules import MANAGE_MEMBERS, RANK, allows, may_give, may_touch
from portal.teams.selectors import SESSION_TEAM, current_team, invitations_to, members_of

SHOWN = 50


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
def members_page(request: HttpRequest) -> HttpResponse:
    """Read; invite. A new link is in this one answer and nowhere else."""
    user, team = signed_in(request), current_team(request)
    role = members.role_in(team, user)
    form = InviteForm(role, request.POST or None)
    link, status = None, 200
    if request.method == "POST":
        if not allows(role, MANAGE_MEMBERS) or team.kind != Team.Kind.SHARED:
            raise Http404
        if refusal := throttled(request, "invite"):
            return refusal
        status = 422
        if form.is_valid():
            try:
                link = _invite(request, team, user, form)
                form, status = InviteForm(role), 201
            except Refused as refused:
                form.refuse(refused)
    page = _page(request, user, team, role) | {"form": form, "link": link}
    return render(request, "teams/members.html", page, status=status)


def _invite(request: HttpRequest, team: Team, user: User, form: InviteForm) -> str | None:
    """The link to show: all of it where no letter carries it."""
    wanted = form.cleaned_data
    made, url = invitations.invite(
        team=team, role=wanted["role"], email=wanted["email"], actor=user
    )
    if not made.email:
        return url
    if not invitations.send_invitation(invitation=made, url=url):
        messages.warning(request, _("The letter could not be sent. Pass the link on yourself."))
        return url
    messages.success(request, _("Invited %(email)s.") % {"email": made.email})
    return None if settings.LLMASOS.email_url else url


def _page(request: HttpRequest, user: User, team: Team, role: str) -> dict[str, object]:
    """What ``teams/members.html`` shows, besides the form and a new link."""
    page = Paginator(members_of(team, viewer=user), SHOWN).get_page(request.GET.get("page"))
    rows = [
        {
            "membership": member,
            "role": ROLE_NAMES[member.role],
            "me": member.user_id == user.pk,
            "may_change": may_touch(role, member.role) and team.kind == Team.Kind.SHARED,
        }
        for member in page
    ]
    given = choices([each for each in reversed(RANK) if may_give(role, each)])
    return {
        "team": team,
        "page": page,
        "rows": rows,
        "roles": given,
        "invitations": [
            (each, ROLE_NAMES[each.role], may_give(role, each.role))
            for each in invitations_to(team, viewer=user)
        ],
        "may_manage": allows(role, MANAGE_MEMBERS) and team.kind == Team.Kind.SHARED,
        "permissions": table(),
        "role_names": list(ROLE_NAMES.values()),
    }


@login_required
@require_POST
def set_role(request: HttpRequest, member_id: int) -> HttpResponse:
    user, member = signed_in(request), _member(request, member_id)
    role = request.POST.get("role", "")
    if role not in Membership.Role.values:
        raise Http404
    try:
        if members.change_role(membership=member, role=role, actor=user):
            said = {"email": member.user.email, "role": ROLE_NAMES[role]}
            messages.success(request, _("%(email)s is %(role)s now.") % said)
    except LastOwner as error:
        messages.error(request, str(error))
    except NotAllowed:
        raise Http404 from None
    return redirect("teams:members")


@login_required
@require_POST
def remove(request: HttpRequest, member_id: int) -> HttpResponse:
    """Remove somebody, or leave."""
    user, member = signed_in(request), _member(request, member_id)
    try:
        members.remove_member(membership=member, actor=user)
    except LastOwner as error:
        messages.error(request, str(error))
        return redirect("teams:members")
    except NotAllowed:
        raise Http404 from None
    if member.user_id == user.pk:
        messages.success(request, _("You left %(team)s.") % {"team": member.team.name})
        return redirect("teams:all")
    messages.success(request, _("Removed %(email)s.") % {"email": member.user.email})
    return redirect("teams:members")


@login_required
@require_POST
def revoke_invitation(request: HttpRequest, invitation_id: uuid.UUID) -> HttpResponse:
    user, team = signed_in(request), current_team(request)
    found = invitations_to(team, viewer=user).filter(pk=invitation_id).first()
    if found is None:
        raise Http404
    try:
        invitations.revoke_invitation(invitation=found, actor=user)
    except NotAllowed:
        raise Http404 from None
    messages.success(request, _("The invitation no longer works."))
    return redirect("teams:members")


@never_cache
@require_http_methods(["GET", "POST"])
def join(request: HttpRequest, token: str) -> HttpResponse:
    """An invitation. Opening it changes nothing, and tells strangers nothing: sign in first.

    A token that is unknown, used, too old or revoked gets one and the same answer.
    """
    if refusal := throttled(request, "join"):
        return refusal
    if not isinstance(request.user, User):
        return redirect_to_login(request.get_full_path())
    user, found = request.user, invitations.invitation_of(token)
    problem = None
    try:
        if found is not None and request.method == "POST":
            made = invitations.accept_invitation(token=token, user=user)
            if made is not None:
                request.session[SESSION_TEAM] = str(made.team_id)
                messages.success(request, _("Welcome to %(team)s.") % {"team": made.team.name})
                return redirect("teams:members")
            found = None
        elif found is not None:
            invitations.check_invited(found, user)
    except Refused as refused:
        problem = str(refused)
    role = ROLE_NAMES[found.role] if found else ""
    page = {"invitation": found, "problem": problem, "role": role}
    status = 410 if found is None else 409 if problem else 200
    return render(request, "teams/join.html", page, status=status)


def _member(request: HttpRequest, member_id: int) -> Membership:
    """A member of the current team, whom the viewer can see."""
    seen = members_of(current_team(request), viewer=signed_in(request))
    found = seen.filter(pk=member_id).first()
    if found is None:
        raise Http404
    return found
