"""The developers' page: a quick start with one's key filled in, and the reference, to try.

Context of ``developers/reference.html``:

    groups      ``portal.api.reference.Group``: the routes, from the description made of the code
    prefix      the path below which the portal lives, usually empty
    base        the address of this portal, without a slash at its end
    model       the id of the model in the examples
    plaintext   a key that was just made, once; else None
    may_make    whether the reader may make one here
"""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, URLResolver, path
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from portal.accounts.models import User
from portal.api.description import described
from portal.api.reference import groups
from portal.teams.rules import MANAGE_KEYS, may
from portal.teams.selectors import current_team
from portal.teams.services import KeyRefused, create_key


@never_cache
@require_http_methods(["GET", "POST"])
def reference(request: HttpRequest) -> HttpResponse:
    """POST makes a key for the current team, which is in this one answer and nowhere else."""
    user, team = request.user, current_team(request)
    may_make = isinstance(user, User) and may(user, MANAGE_KEYS, team)
    plaintext, problem, status = None, "", 200
    if request.method == "POST":
        if not (isinstance(user, User) and may_make):
            raise Http404
        try:
            _key, plaintext = create_key(team=team, user=user, name=_("Tried in the reference"))
            status = 201
        except KeyRefused as refusal:
            problem, status = str(refusal), 422
    context = {
        "groups": groups(described()),
        "prefix": settings.LLMASOS.prefix,
        "base": request.build_absolute_uri("/").rstrip("/") + settings.LLMASOS.prefix,
        "model": settings.LLMASOS.default_model,
        "plaintext": plaintext,
        "may_make": may_make,
        "problem": problem,
    }
    return render(request, "developers/reference.html", context, status=status)


app_name = "developers"
urlpatterns: list[URLPattern | URLResolver] = [path("", reference, name="reference")]
