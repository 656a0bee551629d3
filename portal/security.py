"""The content security policy of our pages, and the looser one of the admin site."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from csp.constants import NONCE, NONE, SELF
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

ADMIN_SCRIPTS = (SELF, "'unsafe-inline'", "'unsafe-eval'")
"""What unfold's Alpine and inline handlers need. Only operators see those pages, and nothing that
a model or a stranger wrote is rendered there as anything but escaped text."""

CORS_REQUEST_HEADERS: list[str] = [
    "accept", "authorization", "content-type", "idempotency-key", "last-event-id",
    # What OpenAI's package for browsers says about itself.
    *(f"x-stainless-{name}" for name in ("arch", "lang", "os", "package-version", "retry-count",
                                         "runtime", "runtime-version", "timeout")),
]  # fmt: skip
CORS_ANSWER_HEADERS: list[str] = [
    "retry-after", "x-request-id",
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset")
      for of in ("requests", "tokens")),
]  # fmt: skip


def policy(url: str, *, sign_in: str = "") -> dict[str, Any]:
    """django-csp's description: everything from this origin, scripts by nonce, nothing inline.

    ``url`` is where people find us; its WebSocket twin is named too, for browsers in which
    ``'self'`` does not cover ``ws:`` and ``wss:``. ``sign_in`` is the provider to which the sign-in
    form leads: browsers hold a form's redirects to ``form-action`` as well.
    """
    parts, provider = urlsplit(url), urlsplit(sign_in)
    forms = [SELF, *([f"{provider.scheme}://{provider.netloc}"] if sign_in else [])]
    sockets = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
    return {
        "DIRECTIVES": {
            "default-src": [SELF],
            "script-src": [SELF, NONCE],
            "style-src": [SELF, NONCE],
            "img-src": [SELF, "data:", "blob:"],
            "font-src": [SELF, "data:"],
            "connect-src": [SELF, sockets],
            "object-src": [NONE],
            "base-uri": [SELF],
            "form-action": forms,
            "frame-ancestors": [NONE],
            "frame-src": [NONE],
        }
    }


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """One strict policy everywhere, except on the admin site."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if request.path.startswith(reverse("admin:index")):
            inline = {"script-src": ADMIN_SCRIPTS, "style-src": (SELF, "'unsafe-inline'")}
            parts.replace = {**(parts.replace or {}), **inline}
            parts.nonce = None
        return parts
