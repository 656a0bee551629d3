"""Requests with an API key go past what only pages need.

Sessions, forms, languages and messages are middleware that runs in threads; each costs two changes
of thread, all of them together more than the rest of a request. A request with a key in its header
is signed in by that and by nothing else, and what is left of the middleware stays in the loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.middleware.security import SecurityMiddleware

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

FOR_PAGES = frozenset(
    {
        "servestatic.middleware.ServeStaticMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "portal.security.ContentSecurityPolicyMiddleware",
        "allauth.account.middleware.AccountMiddleware",
        "portal.accounts.middleware.LastSeenMiddleware",
        "django_htmx.middleware.HtmxMiddleware",
    }
)


class InLoopSecurity(SecurityMiddleware):
    """Django runs both halves in threads, in case that they wait for something; they don't."""

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        refused = self.process_request(request)
        return self.process_response(request, refused or await _later(self, request))


class InLoopCommon(CommonMiddleware):
    """As above."""

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        refused = self.process_request(request)
        return self.process_response(request, refused or await _later(self, request))


async def _later(middleware: Any, request: HttpRequest) -> Any:
    return await middleware.get_response(request)


IN_LOOP = {
    "django.middleware.security.SecurityMiddleware": "portal.lean.InLoopSecurity",
    "django.middleware.common.CommonMiddleware": "portal.lean.InLoopCommon",
}


class KeyedHandler(ASGIHandler):
    """Django without what is ``FOR_PAGES``; what is added to the settings stays in."""

    def load_middleware(self, is_async: bool = False) -> None:
        everything = settings.MIDDLEWARE
        kept = [name for name in everything if name not in FOR_PAGES]
        settings.MIDDLEWARE = [IN_LOOP.get(name, name) for name in kept]
        try:
            super().load_middleware(is_async)
        finally:
            settings.MIDDLEWARE = everything

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Without the thread that Django makes for each request: the database has its own
        (``portal.threads``), and nothing else waits."""
        await self.handle(scope, receive, send)


class ByKey:
    """Chooses for each request; ``prefix`` is the path below which we are shown."""

    def __init__(self, pages: Application, keyed: Application, *, prefix: str) -> None:
        self._pages, self._keyed = pages, keyed
        self._roots = (f"{prefix}/v1/", f"{prefix}/api/v1/")

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        keyed = scope["path"].startswith(self._roots) and any(
            name == b"authorization" for name, _ in scope["headers"]
        )
        await (self._keyed if keyed else self._pages)(scope, receive, send)
