"""Requests with an API key go past what only pages need.

Sessions, forms, languages and messages are middleware that runs in threads; each costs two changes
of thread, all of them together more than the rest of a request. A request with a key in its header
is signed in by that and by nothing else, and what is left of the middleware stays in the loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.security import SecurityMiddleware

from portal.security import ContentSecurityPolicyMiddleware

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


class _InLoop:
    """Django runs both halves of these in threads, in case that they wait for something. They only
    compute."""

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        it: Any = self
        response = it.process_request(request) if hasattr(it, "process_request") else None
        return cast(
            HttpResponseBase,
            it.process_response(request, response or await it.get_response(request)),
        )


class InLoopSecurity(_InLoop, SecurityMiddleware):
    pass


class InLoopCommon(_InLoop, CommonMiddleware):
    pass


class InLoopFrames(_InLoop, XFrameOptionsMiddleware):
    pass


class InLoopPolicy(_InLoop, ContentSecurityPolicyMiddleware):
    pass


IN_LOOP = {
    "django.middleware.security.SecurityMiddleware": "portal.lean.InLoopSecurity",
    "django.middleware.common.CommonMiddleware": "portal.lean.InLoopCommon",
    "django.middleware.clickjacking.XFrameOptionsMiddleware": "portal.lean.InLoopFrames",
    "portal.security.ContentSecurityPolicyMiddleware": "portal.lean.InLoopPolicy",
}


class PagesHandler(ASGIHandler):
    """Django, with what is ``IN_LOOP`` in place of its originals."""

    left_out: ClassVar[frozenset[str]] = frozenset()

    def load_middleware(self, is_async: bool = False) -> None:
        everything = settings.MIDDLEWARE
        kept = [name for name in everything if name not in self.left_out]
        settings.MIDDLEWARE = [IN_LOOP.get(name, name) for name in kept]
        try:
            super().load_middleware(is_async)
        finally:
            settings.MIDDLEWARE = everything


class KeyedHandler(PagesHandler):
    """Without what is ``FOR_PAGES``; what is added to the settings stays in."""

    left_out = FOR_PAGES

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
