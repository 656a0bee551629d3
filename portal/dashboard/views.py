"""Operators' pages; for everybody else they do not exist.

Context of ``dashboard/now.html`` and of its part ``dashboard/_live.html``, which htmx asks for each
second from ``dashboard:live``:

    now     selectors.Now: waiting, longest_wait (s), running, slots, tokens_per_second, reachable,
            ended (jobs, failed, by_code), models (id, waiting, wait, running, slots, workers,
            paused) and workers (WorkerInfo: name, model, state, progress, message, running,
            waiting, slots, blocks_used, blocks_total, prefix_hits, prefix_lookups,
            tokens_per_second, memory_bytes, host, pid, device, started_at, paused)
    drained the name of a worker that was just asked to drain, or ""
    problem a sentence when that failed, or ""

``dashboard:drain`` takes POST with ``worker``; htmx gets the part back, others are redirected.
``dashboard:live`` answers JSON to ``Accept: application/json``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from portal.accounts.models import User
from portal.dashboard import selectors, services

View = Callable[..., HttpResponse]


def operators_only(view: View) -> View:
    """404 for everybody else: that there is such a page is nobody's business."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not (request.user.is_active and request.user.is_staff):
            raise Http404
        return view(request, *args, **kwargs)

    return guarded


@never_cache
@operators_only
@require_GET
def now(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/now.html", _context())


@never_cache
@operators_only
@require_GET
def live(request: HttpRequest) -> HttpResponse:
    if request.headers.get("Accept", "").startswith("application/json"):
        return JsonResponse(_json(selectors.now.get()))
    return render(request, "dashboard/_live.html", _context())


@operators_only
@require_POST
def drain(request: HttpRequest) -> HttpResponse:
    name = request.POST.get("worker", "")
    assert isinstance(request.user, User)
    problem = ""
    try:
        services.drain_worker(operator=request.user, name=name)
    except services.UnknownWorker:
        problem = _("There is no worker of that name any more.")
    if request.headers.get("HX-Request"):
        drained = "" if problem else name
        return render(request, "dashboard/_live.html", _context(drained, problem))
    return redirect("dashboard:now")


def _context(drained: str = "", problem: str = "") -> dict[str, Any]:
    return {"now": selectors.now.get(), "drained": drained, "problem": problem}


def _json(now: selectors.Now) -> dict[str, Any]:
    return {
        "at": now.at,
        "reachable": now.reachable,
        "waiting": now.waiting,
        "longest_wait": now.longest_wait,
        "running": now.running,
        "slots": now.slots,
        "tokens_per_second": now.tokens_per_second,
        "models": [asdict(model) for model in now.models],
        "workers": [worker.model_dump(mode="json") for worker in now.workers],
        "ended": asdict(now.ended),
    }
