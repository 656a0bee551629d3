"""The playground's page and its JSON endpoints. Parsing and services; nothing else happens here."""

from __future__ import annotations

import uuid
from importlib import import_module
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_http_methods

from portal.catalogue.selectors import NotPlaced, UnknownModel, servable, text_models
from portal.conversations import selectors, services
from portal.conversations.models import Conversation
from portal.conversations.services import Ask
from portal.jobs.errors import InvalidRequest, ModelUnavailable
from portal.jobs.inputs import count_tokens
from portal.jobs.selectors import job_for
from portal.jobs.services import cancel_job
from portal.jobs.viewer import Viewer, viewer_of
from portal.network import request_address
from portal.playground.answers import refusals_answered
from portal.playground.requests import (
    ChangeConversation,
    CountTokens,
    NewConversation,
    NewJob,
    read_body,
)
from portal.teams.rules import RUN_JOBS, may
from portal.teams.selectors import current_team
from portal.usage.limits import check_anonymous


def _viewer(request: HttpRequest, *, remember: bool = False) -> Viewer:
    return viewer_of(request.user, request.session, remember=remember)


@never_cache
@ensure_csrf_cookie
@require_http_methods(["GET", "HEAD"])
def home(request: HttpRequest) -> HttpResponse:
    return _page(request, None)


@never_cache
@ensure_csrf_cookie
@require_http_methods(["GET", "HEAD"])
def conversation_page(request: HttpRequest, conversation_id: uuid.UUID) -> HttpResponse:
    try:
        found = selectors.conversation_for(_viewer(request), conversation_id)
    except Conversation.DoesNotExist:
        raise Http404 from None
    return _page(request, found)


def _page(request: HttpRequest, conversation: Conversation | None) -> HttpResponse:
    viewer = _viewer(request)
    state = {
        "models": _models(),
        "conversation": selectors.describe(conversation) if conversation else None,
        "conversations": selectors.listing(viewer, team=current_team(request)),
        "settings": conversation.settings if conversation else {},
        "examples": _examples(),
        "user": {"signed_in": viewer.user is not None},
    }
    return render(request, "playground/page.html", {"state": state})


def _models() -> list[dict[str, Any]]:
    names = ("id", "name", "kind", "context_length", "state")
    return [{name: getattr(model, name) for name in names} for model in text_models()]


def _examples() -> list[Any]:
    try:
        return list(import_module("portal.playground.examples").EXAMPLES)
    except ImportError:
        return []


@ensure_csrf_cookie
@require_http_methods(["GET", "POST"])
@refusals_answered
def conversations(request: HttpRequest) -> HttpResponse:
    """List and search; begin one."""
    if request.method == "GET":
        found = selectors.listing(
            _viewer(request), request.GET.get("q", ""), team=current_team(request)
        )
        return JsonResponse({"conversations": found})
    body = read_body(request, NewConversation)
    made = services.begin(
        viewer=_viewer(request, remember=True),
        team=current_team(request),
        mode=body.mode,
        model=body.model,
    )
    return JsonResponse(selectors.summary(made), status=201)


@require_http_methods(["GET", "PATCH", "DELETE"])
@refusals_answered
def conversation(request: HttpRequest, conversation_id: uuid.UUID) -> HttpResponse:
    """Read, rename or set, delete."""
    found = selectors.conversation_for(_viewer(request), conversation_id)
    if request.method == "DELETE":
        services.delete(conversation=found)
        return HttpResponse(status=204)
    if request.method == "PATCH":
        body = read_body(request, ChangeConversation)
        if body.title is not None:
            services.rename(conversation=found, title=body.title)
        if body.settings is not None:
            kept = body.settings.model_dump(mode="json", exclude_unset=True)
            services.change_settings(conversation=found, settings=kept)
    return JsonResponse(selectors.describe(found))


@require_http_methods(["POST"])
@refusals_answered
def restore(request: HttpRequest, conversation_id: uuid.UUID) -> HttpResponse:
    found = selectors.conversation_for(_viewer(request), conversation_id, deleted=True)
    services.restore(conversation=found)
    return JsonResponse(selectors.summary(found))


@require_http_methods(["POST"])
@refusals_answered
def jobs(request: HttpRequest) -> HttpResponse:
    """Ask for the next answer."""
    body = read_body(request, NewJob)
    viewer = _viewer(request)
    found = selectors.conversation_for(viewer, body.conversation)
    if viewer.user is None:
        check_anonymous(request_address(request))
    elif not may(viewer.user, RUN_JOBS, found.team):
        raise Conversation.DoesNotExist
    answer = services.ask(viewer=viewer, conversation=found, wish=_wish(body))
    assert answer.job is not None
    return JsonResponse(
        {
            "job": {"id": answer.job.pk.hex},
            "message": selectors.describe_message(answer),
            "question": str(answer.parent_id),
            "conversation": selectors.summary(answer.conversation),
        },
        status=201,
    )


def _wish(body: NewJob) -> Ask:
    return Ask(
        model=body.model,
        mode=body.mode,
        sampling=body.settings.sampling(),
        settings=body.settings.model_dump(mode="json", exclude_unset=True),
        text=body.text,
        regenerate=body.regenerate,
        edit=body.edit,
        seed=body.settings.seed,
        system=body.settings.system,
        key=str(body.client_key) if body.client_key else None,
    )


@require_http_methods(["POST"])
@refusals_answered
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    outcome = cancel_job(job=job_for(_viewer(request), job_id))
    return JsonResponse({"result": outcome}, status=202)


@require_http_methods(["POST"])
@refusals_answered
def tokens(request: HttpRequest) -> HttpResponse:
    """How long a text is for a model."""
    body = read_body(request, CountTokens)
    try:
        model = servable(body.model)
    except UnknownModel as error:
        raise InvalidRequest("model", str(error), "model_not_found") from None
    except NotPlaced as error:
        raise ModelUnavailable(str(error)) from None
    return JsonResponse({"count": count_tokens(body.text, model=model)})
