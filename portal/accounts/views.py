"""The one page of our own about accounts: an operator's one-time link. allauth has the rest."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from portal.accounts.models import User
from portal.accounts.selectors import opens
from portal.accounts.services import claim_operator_link

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
