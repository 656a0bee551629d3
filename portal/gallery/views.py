"""The gallery's pages.

Context of ``gallery/list.html`` (and of ``gallery/_cards.html``, which htmx asks for):

    apps        App rows: slug, icon, name, description, author, category, current, runs
    categories  pairs (value, label) of ``App.Category``
    search, category, sort   as asked; sort is one of used, new, name

Context of ``gallery/app.html``:

    app         an App row, as above
    version     its AppVersion
    model       the id of the model it runs on
    inputs      dicts: name, kind (text | choice), label, hint, rows, max_length, choices (value,
                label), all in the reader's language
    examples    list of {input name: value}, to click
    result      "text" or "scores"
    labels      dicts: value, name (of a scored app)
    app_data    what the page's script needs, for ``json_script``: run_url, result_url (with a
                zero id to replace), result, examples

``POST gallery/<slug>/run`` takes JSON ``{"inputs": {…}}`` with the CSRF header and answers 201
``{"run": {"id", "url"}, "jobs": [{"id", "label"}], "kind": "text" | "scores"}``; refusals are
``{"error": {"message", "code", "field"}}``. The jobs are watched over ``/ws/jobs``.
``GET gallery/runs/<id>`` answers ``{"run": {"id", "app", "version"}, "kind", "state", "text",
"scores": [{"label", "name", "probability"}], "error", "jobs": [id, …]}``.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from portal.gallery import selectors, services
from portal.gallery.definition import Definition, InvalidInput
from portal.gallery.models import App, AppRun
from portal.jobs.errors import InvalidRequest, JobRefused
from portal.jobs.said import said
from portal.jobs.viewer import viewer_of
from portal.metrics import JOBS_REFUSED
from portal.network import request_address
from portal.teams.rules import RUN_JOBS, may
from portal.teams.selectors import current_team
from portal.usage.limits import RateLimited, check_anonymous
from portal.usage.services import OverBudget

ZERO = UUID(int=0)


@require_GET
def listing(request: HttpRequest) -> HttpResponse:
    search = request.GET.get("q", "").replace("\0", "")[:100]
    category = request.GET.get("category", "")
    sort = request.GET.get("sort", "used")
    if category not in App.Category.values:
        category = ""
    if sort not in selectors.SORTS:
        sort = selectors.SORTS[0]
    context = {
        "apps": selectors.apps(search=search, category=category, sort=sort),
        "categories": App.Category.choices,
        "search": search,
        "category": category,
        "sort": sort,
    }
    part = request.headers.get("HX-Request") and not request.headers.get("HX-Boosted")
    return render(request, "gallery/_cards.html" if part else "gallery/list.html", context)


@ensure_csrf_cookie
@require_GET
def app(request: HttpRequest, slug: str) -> HttpResponse:
    found = _app(slug)
    assert found.current is not None
    definition = Definition.model_validate(found.current.definition)
    language = get_language() or "en"
    examples = list(definition.examples)
    context = {
        "app": found,
        "version": found.current,
        "model": services.model_of(definition),
        "inputs": [_input(field, language) for field in definition.inputs],
        "examples": examples,
        "result": definition.result,
        "labels": [
            {"value": label.value, "name": label.name.pick(language)} for label in definition.labels
        ],
        "app_data": {
            "run_url": reverse("gallery:run", args=[slug]),
            "result_url": reverse("gallery:result", args=[ZERO]),
            "result": definition.result,
            "examples": examples,
        },
    }
    return render(request, "gallery/app.html", context)


@require_POST
def run(request: HttpRequest, slug: str) -> HttpResponse:
    found = _app(slug)
    viewer = viewer_of(request.user, request.session, remember=True)
    team = current_team(request)
    if viewer.user is not None and not may(viewer.user, RUN_JOBS, team):
        raise Http404
    try:
        inputs = _inputs(request)
        if viewer.user is None:
            check_anonymous(request_address(request))
        made = services.run_app(
            app=found,
            team=team,
            user=viewer.user,
            session=viewer.session,
            inputs=inputs,
        )
    except InvalidInput as error:
        return _refusal(400, error.message, "invalid_input", error.field)
    except services.NotRunnable:
        raise Http404 from None
    except (RateLimited, OverBudget) as error:
        code = "rate_limited" if isinstance(error, RateLimited) else "over_budget"
        JOBS_REFUSED.labels(code).inc()
        text = said(error) if isinstance(error, OverBudget) else str(error)
        return _refusal(429, text, code, None, error.retry_after)
    except JobRefused as error:
        JOBS_REFUSED.labels(error.code).inc()
        status = 400 if isinstance(error, InvalidRequest) else 503
        return _refusal(status, said(error), error.code, error.field, error.retry_after)
    return JsonResponse(
        {
            "run": {"id": made.id.hex, "url": reverse("gallery:result", args=[made.id])},
            "jobs": [
                {"id": part.job.id.hex, "label": part.label} for part in selectors.parts(made)
            ],
            "kind": made.kind,
        },
        status=201,
    )


@never_cache
@require_GET
def run_result(request: HttpRequest, run_id: UUID) -> HttpResponse:
    found = selectors.run(run_id, viewer_of(request.user, request.session))
    if found is None:
        raise Http404
    return JsonResponse(_result(found, get_language() or "en"))


def _app(slug: str) -> App:
    found = selectors.app(slug)
    if found is None:
        raise Http404
    return found


def _inputs(request: HttpRequest) -> Any:
    """The body's ``inputs``; raises ``InvalidInput`` for a body that has none."""
    try:
        body = json.loads(request.body)
        return body["inputs"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise InvalidInput("inputs", _('Send JSON of the form {"inputs": {…}}.')) from None


def _input(field: Any, language: str) -> dict[str, Any]:
    return {
        "name": field.name,
        "kind": field.kind,
        "label": field.label.pick(language),
        "hint": field.hint.pick(language),
        "rows": field.rows,
        "max_length": field.max_length,
        "choices": [
            {"value": choice.value, "label": choice.label.pick(language)}
            for choice in field.choices
        ],
    }


def _result(run: AppRun, language: str) -> dict[str, Any]:
    result = selectors.result(run, language)
    return {
        "run": {
            "id": run.id.hex,
            "app": run.version.app.slug,
            "version": run.version.number,
        },
        "kind": run.kind,
        "state": result.state,
        "text": result.text,
        "scores": [
            {"label": score.label, "name": score.name, "probability": score.probability}
            for score in result.scores
        ],
        "error": result.error,
        "jobs": [part.job.id.hex for part in selectors.parts(run)],
    }


def _refusal(
    status: int, message: str, code: str, field: str | None, retry_after: int | None = None
) -> HttpResponse:
    body = {"error": {"message": message, "code": code, "field": field}}
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return JsonResponse(body, status=status, headers=headers)
