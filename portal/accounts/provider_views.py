"""allauth's way to a sign-in provider and back, with a provider that is away or talks nonsense."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import requests
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.providers.openid_connect import views
from django.http import HttpRequest, HttpResponse

View = Callable[..., HttpResponse]


def _answered(view: View) -> View:
    """What the provider does wrong is a page that says so; allauth sees to half of the way only."""

    @wraps(view)
    def respond(request: HttpRequest, provider_id: str) -> HttpResponse:
        try:
            return view(request, provider_id)
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            provider = get_adapter().get_provider(request, provider_id)
            answer: HttpResponse = render_authentication_error(request, provider, exception=error)
            return answer

    return respond


login = _answered(views.login)
callback = _answered(views.callback)
