"""What the portal counts, for Prometheus, under ``/metrics``.

The counters are process-wide and live here, below every app, so that any app may use them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from portal.network import is_from_this_machine

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

REQUESTS = Counter(
    "llmasos_http_requests", "HTTP requests.", ("method", "route", "status"), registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "llmasos_http_request_seconds",
    "Time until the response's headers; a stream goes on after that.",
    ("route",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
JOBS_CREATED = Counter("llmasos_jobs_created", "Jobs accepted.", ("model",), registry=REGISTRY)
JOBS_REFUSED = Counter(
    "llmasos_jobs_refused", "Requests that did not become a job.", ("code",), registry=REGISTRY
)
JOBS_RECORDED = Counter(
    "llmasos_jobs_recorded", "Jobs whose end is in the database.", ("state",), registry=REGISTRY
)
TOKENS = Counter("llmasos_tokens", "Tokens of recorded jobs.", ("model", "kind"), registry=REGISTRY)
STREAMS = Gauge("llmasos_streams", "Readers of job logs connected now.", registry=REGISTRY)

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class MetricsMiddleware:
    """Counts requests by route: the URL pattern's name, never the URL, which a stranger chooses."""

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response = get_response
        self._in_loop = bool(iscoroutinefunction(get_response))
        if self._in_loop:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._in_loop:
            return self._later(request)
        began = time.perf_counter()
        response = self.get_response(request)
        assert isinstance(response, HttpResponseBase)
        _count(request, response, time.perf_counter() - began)
        return response

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        pending = self.get_response(request)
        assert isinstance(pending, Awaitable)
        response: HttpResponseBase = await pending
        _count(request, response, time.perf_counter() - began)
        return response


def _count(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    match = request.resolver_match
    route = (match.view_name or match.route) if match else "unknown"
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(method, route, response.status_code).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)


async def metrics(request: HttpRequest) -> HttpResponse:
    """For this machine and for operators; to everybody else it is not there."""
    if not is_from_this_machine(request):
        user = await request.auser()
        if not (user.is_active and user.is_staff):
            raise Http404
    body = await sync_to_async(generate_latest, thread_sensitive=False)(REGISTRY)
    return HttpResponse(body, content_type=CONTENT_TYPE_LATEST)
