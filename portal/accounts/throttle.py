"""How often one may try what is worth guessing; allauth counts, by the rates in the settings."""

from __future__ import annotations

from allauth.core.internal import ratelimit
from django.http import HttpRequest, HttpResponse


def throttled(request: HttpRequest, action: str) -> HttpResponse | None:
    """Count one try; the answer 429 when there were too many for ``ACCOUNT_RATE_LIMITS``.

    Reading counts too, unlike in allauth's own forms: a link is tried by opening it.
    """
    answer: HttpResponse | None = ratelimit.consume_or_429(
        request, app="allauth.account", action=action, limit_get=True
    )
    return answer
