"""When each session was last used, for the list of one's sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256

from allauth.usersessions.models import UserSession
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

PRECISION_S = 300
"""Noted at most this often: a page that polls must not write on every call."""


@sync_and_async_middleware
def LastSeenMiddleware(
    get_response: Callable[[HttpRequest], HttpResponseBase]
    | Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> object:
    """allauth's own is sync-only and writes on each request."""
    if iscoroutinefunction(get_response):

        async def respond_later(request: HttpRequest) -> HttpResponseBase:
            if _has_session(request):
                await sync_to_async(note)(request)
            return await get_response(request)  # type: ignore[no-any-return]

        return respond_later

    def respond(request: HttpRequest) -> HttpResponseBase:
        if _has_session(request):
            note(request)
        return get_response(request)  # type: ignore[return-value]

    return respond


def _has_session(request: HttpRequest) -> bool:
    return settings.SESSION_COOKIE_NAME in request.COOKIES


def note(request: HttpRequest) -> None:
    key = sha256((request.session.session_key or "").encode()).hexdigest()
    if cache.add(f"seen:{key}", True, PRECISION_S) and request.user.is_authenticated:
        UserSession.objects.create_from_request(request)
