"""Our own pages about accounts: the profile, ending a session, an operator's one-time link.

allauth has the rest; deleting and exporting an account concern its teams as well and lie there.
"""

from __future__ import annotations

from allauth.usersessions.internal.flows.sessions import end_sessions
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST
from django.views.i18n import set_language

from portal.accounts.languages import note_language
from portal.accounts.models import User
from portal.accounts.selectors import opens, signed_in
from portal.accounts.services import claim_operator_link, rename_user

SESSION_TOKEN = "operator_token"  # noqa: S105  (the name of a session's entry)


@never_cache
@require_http_methods(["GET", "POST"])
def operator(request: HttpRequest, token: str) -> HttpResponse:
    """Opening the link changes nothing yet: browsers and mail scanners open links unasked.

    A signed-in user confirms with a button; anybody else signs up first, and ``AccountAdapter``
    uses the link when the account is made.
    """
    if not opens(token):
        return render(request, "accounts/operator.html", {"spent": True}, status=410)
    if not isinstance(request.user, User):
        request.session[SESSION_TOKEN] = token
        return redirect("account_signup")
    if request.method == "POST":
        claim_operator_link(token=token, user=request.user)
        return redirect("home")
    return render(request, "accounts/operator.html", {"spent": False})


class ProfileForm(forms.Form):
    name = forms.CharField(
        max_length=120,
        required=False,
        label=gettext_lazy("Name"),
        widget=forms.TextInput({"class": "input", "autocomplete": "name"}),
    )


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    form = ProfileForm(request.POST or None, initial={"name": user.name})
    if request.method == "POST" and form.is_valid():
        rename_user(user=user, name=form.cleaned_data["name"])
        messages.success(request, _("Saved."))
        return redirect("accounts:profile")
    status = 422 if form.errors else 200
    return render(request, "accounts/profile.html", {"form": form}, status=status)


@login_required
@require_POST
def end_session(request: HttpRequest, session_id: int) -> HttpResponse:
    """Sign one of one's own sessions out; its open sockets close as it goes."""
    found = UserSession.objects.filter(pk=session_id, user=request.user).first()
    if found is None:
        raise Http404
    end_sessions(request, [found])
    if not request.user.is_authenticated:  # it was this one
        return redirect("account_login")
    messages.success(request, _("Signed out there."))
    return redirect("usersessions_list")


@require_POST
def choose_language(request: HttpRequest) -> HttpResponseBase:
    """Of the pages in this browser, and of the letters to whoever is signed in."""
    if isinstance(request.user, User):
        note_language(user=request.user, language=request.POST.get("language", ""), chosen=True)
    return set_language(request)
