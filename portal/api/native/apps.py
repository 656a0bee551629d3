"""``/api/v1/apps`` and ``/api/v1/runs``: the gallery's apps, for programs."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest
from django.utils.translation import get_language
from ninja import Path, Query, Router, Status

from portal.api import creation
from portal.api.auth import KEY, Caller
from portal.api.errors import ERRORS, ApiError, ErrorBody
from portal.api.native.common import caller_of, not_found, viewer_of
from portal.api.native.schemas import AppDetail, AppList, NewRun, RunDetail
from portal.gallery import selectors, services
from portal.gallery.definition import Definition, InvalidInput
from portal.gallery.models import App, AppRun
from portal.jobs.errors import JobRefused
from portal.threads import in_thread
from portal.usage.services import OverBudget

router = Router(tags=["Apps"])
Slug = Annotated[str, Path(max_length=64)]


@router.get(
    "/apps", auth=KEY, summary="The gallery's apps", response={200: AppList, ERRORS: ErrorBody}
)
async def list_apps(
    request: HttpRequest, search: Annotated[str, Query(max_length=100)] = ""
) -> Any:
    """Names are in the language of ``Accept-Language``."""
    found = await in_thread(_apps)(search)
    return {"apps": found}


@router.get(
    "/apps/{slug}", auth=KEY, summary="One app", response={200: AppDetail, ERRORS: ErrorBody}
)
async def read_app(request: HttpRequest, slug: Slug) -> Any:
    return await in_thread(lambda: _app(_found(slug)))()


@router.post(
    "/apps/{slug}/runs", auth=KEY, summary="Run an app",
    response={201: RunDetail, ERRORS: ErrorBody},
)  # fmt: skip
async def run_app(request: HttpRequest, slug: Slug, body: NewRun) -> Any:
    """Answers at once; read the run, or follow its jobs, for the result."""
    return Status(201, await in_thread(_run)(caller_of(request), slug, body))


@router.get(
    "/runs/{run_id}", auth=KEY, summary="A run and its result",
    response={200: RunDetail, ERRORS: ErrorBody},
)  # fmt: skip
async def read_run(request: HttpRequest, run_id: Annotated[str, Path(max_length=64)]) -> Any:
    return await in_thread(_read_run)(caller_of(request), run_id)


def _apps(search: str) -> list[dict[str, Any]]:
    return [_app(app) for app in selectors.apps(search=search.replace("\0", ""))]


def _found(slug: str) -> App:
    app = selectors.app(slug) if "\0" not in slug else None
    if app is None:
        raise not_found("app")
    return app


def _run(caller: Caller, slug: str, body: NewRun) -> dict[str, Any]:
    app = _found(slug)
    try:
        made = services.run_app(
            app=app, team=caller.team, user=caller.user, session="", inputs=body.inputs
        )
    except InvalidInput as error:
        raise ApiError(
            400, error.message, code="invalid_input", param=f"inputs.{error.field}"
        ) from error
    except services.NotRunnable:
        raise not_found("app") from None
    except (JobRefused, OverBudget) as error:
        raise creation.refusal(error, "") from error
    return _detail(made)


def _read_run(caller: Caller, run_id: str) -> dict[str, Any]:
    found = selectors.run(creation.uuid_or_none(run_id), viewer_of(caller))
    if found is None:
        raise not_found("run")
    return _detail(found)


def _detail(run: AppRun) -> dict[str, Any]:
    result = selectors.result(run, get_language() or "en")
    return {
        "id": run.pk.hex,
        "app": run.version.app.slug,
        "version": run.version.number,
        "kind": run.kind,
        "state": result.state,
        "text": result.text,
        "scores": [
            {"label": score.label, "name": score.name, "probability": score.probability}
            for score in result.scores
        ],
        "error": result.error or None,
        "jobs": [part.job.pk.hex for part in selectors.parts(run)],
    }


def _app(app: App) -> dict[str, Any]:
    assert app.current is not None, "selectors leave out apps without a version"
    definition = Definition.model_validate(app.current.definition)
    language = get_language() or "en"
    return {
        **{name: getattr(app, name) for name in ("slug", "name", "description", "category")},
        "author": app.author,
        "version": app.current.number,
        "model": services.model_of(definition),
        "result": definition.result,
        "inputs": [
            {
                "name": field.name,
                "kind": field.kind,
                "label": field.label.pick(language),
                "hint": field.hint.pick(language),
                "max_length": field.max_length,
                "choices": [choice.value for choice in field.choices],
            }
            for field in definition.inputs
        ],
    }
