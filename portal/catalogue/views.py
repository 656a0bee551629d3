"""The models page: what can be used here, under which licence, and what could be.

Context of ``catalogue/models.html``:

    usable   CatalogueModels that take jobs now
    others   known ones, prepared or not, that would have to be switched on or prepared
    formats  those that a lighter version can have
    problem  a sentence when what an operator asked for failed, or ""

and of its part ``catalogue/_model.html``: ``model``, with ``lighter_versions``, ``figures`` where
``measured``, ``size_change`` and ``perplexity_change``. htmx asks for a part again every two
seconds while its model is being prepared, and for the whole page when that has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from portal.accounts.models import User
from portal.catalogue import lighter
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import UnknownModel, every_model, get, visible_models
from portal.catalogue.services import BadModel, Busy, InUse

View = Callable[..., HttpResponse]


def operators_only(view: View) -> View:
    """404 for everybody else."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not (request.user.is_active and request.user.is_staff):
            raise Http404
        return view(request, *args, **kwargs)

    return guarded


@require_GET
def model_list(request: HttpRequest) -> HttpResponse:
    return _page(request)


def _page(request: HttpRequest, problem: str = "", status: int = 200) -> HttpResponse:
    usable = list(visible_models().prefetch_related("lighter"))
    shown = {model.pk for model in usable}
    known = every_model().prefetch_related("lighter")
    context = {
        "usable": usable,
        "others": [model for model in known if model.pk not in shown],
        "formats": lighter.FORMATS,
        "problem": problem,
    }
    return render(request, "catalogue/models.html", context, status=status)


@never_cache
@require_GET
def part(request: HttpRequest, model_id: str) -> HttpResponse:
    """One model's card while it is being prepared; afterwards htmx loads the page anew."""
    model = _model(model_id)
    answer = render(request, "catalogue/_model.html", {"model": model, "formats": lighter.FORMATS})
    if model.state != CatalogueModel.State.PREPARING or model.stalled:
        answer["HX-Refresh"] = "true"
    return answer


@operators_only
@require_POST
def make_lighter(request: HttpRequest, model_id: str) -> HttpResponse:
    """Take POST with ``format``; the work goes on whether or not somebody watches."""
    _model(model_id)
    try:
        lighter.start(
            origin_id=model_id, target=request.POST.get("format", ""), actor=_user(request)
        )
    except Busy:
        text = _("A lighter version of this model is being made already. Wait until it has ended.")
        return _page(request, text, 409)
    except BadModel as error:
        return _page(request, str(error), 422)
    return redirect("catalogue:list")


@operators_only
@require_POST
def remove(request: HttpRequest, model_id: str) -> HttpResponse:
    """Take a lighter version out, its files too. Other models are removed from the console."""
    model = _model(model_id)
    if model.origin is None:
        raise Http404
    try:
        lighter.discard(model=model, actor=_user(request))
    except InUse as error:
        return _page(request, str(error), 409)
    return redirect("catalogue:list")


def _model(model_id: str) -> CatalogueModel:
    try:
        return get(model_id)
    except UnknownModel:
        raise Http404 from None


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
