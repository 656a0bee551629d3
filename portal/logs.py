"""Structured logs: one line for each event, with the request's id, for people or for machines."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Awaitable
from typing import Any, cast

import structlog
from django.http import HttpRequest, HttpResponse
from django_structlog.middlewares import RequestMiddleware as StructlogMiddleware

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}")
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
SECRET_PATHS = re.compile(r"/(operator|accounts/password/reset/key|accounts/confirm-email)/[^/]+")
"""Paths with a one-time secret in them, which must not stay behind in a log."""


log = structlog.get_logger(__name__)


def describe(*, level: str, as_json: bool) -> dict[str, Any]:
    """Django's ``LOGGING``; also points structlog at it."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        render += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # rich's tracebacks print every local: a failing template took half a minute to log
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=plain
        )
        render.append(console)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": render,
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "django": {"handlers": [], "propagate": True, "level": level},
            "django.server": {"handlers": [], "propagate": True, "level": "WARNING"},
            "django.request": {"level": "ERROR"},  # RequestMiddleware tells the rest
            "django.channels.server": {"level": "WARNING"},
            "daphne": {"level": "WARNING"},
            "redis": {"level": "WARNING"},
        },
    }


class RequestMiddleware(StructlogMiddleware):
    """Gives each request an id, says it in ``X-Request-Id`` and logs the request's end.

    Differs from django-structlog's in what it costs and what it keeps: it never loads a session or
    a user to log them, needs no other thread in the async path, and keeps secrets and query strings
    out of the log.
    """

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        self.prepare(request)
        response = await cast(Awaitable[HttpResponse], self.get_response(request))
        self.handle_response(request, response)
        return response

    def prepare(self, request: HttpRequest) -> None:
        request_id = self._request_id(request)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        request.request_id = request_id  # type: ignore[attr-defined]

    @staticmethod
    def _request_id(request: HttpRequest) -> str:
        """A trusted proxy's id if it sent a sane one, else a new one."""
        from django.conf import settings

        given = request.headers.get("X-Request-Id", "")
        if settings.LLMASOS.trusted_proxies and REQUEST_ID.fullmatch(given):
            return given
        return uuid.uuid4().hex

    def handle_response(self, request: HttpRequest, response: HttpResponse) -> None:
        """Say how it ended. A streamed body is not wrapped: that would cost each of its chunks, and
        whoever streams knows better when it ended. The request's id stays bound meanwhile."""
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        if hasattr(request, "_raised_exception"):  # logged with its traceback when it was raised
            del request._raised_exception
        elif not _is_quiet(request, response):
            self.bind_user_id(request)
            level = self._log_level_for_status_code(response.status_code)
            line = {"code": response.status_code, "request": self.format_request(request)}
            log.log(level, "request_finished", **line)

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {SECRET_PATHS.sub(_hide, request.path)}"

    @staticmethod
    def bind_user_id(request: HttpRequest) -> None:
        user = getattr(request, "_cached_user", None)
        if user is not None and user.pk is not None:
            structlog.contextvars.bind_contextvars(user_id=user.pk)


def _is_quiet(request: HttpRequest, response: HttpResponse) -> bool:
    """Probes come every second, and files of ours by the dozen: nothing to tell."""
    if request.path_info == "/readyz":
        return True
    static = request.path_info.startswith("/static/")
    return response.status_code < 400 and (static or request.path_info in PROBES)


def _hide(match: re.Match[str]) -> str:
    return f"/{match[1]}/…"
