"""The models page: what can be used here, under which licence, and what could be."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from portal.catalogue.selectors import every_model, visible_models


@require_GET
def model_list(request: HttpRequest) -> HttpResponse:
    """``usable`` models take jobs now; ``others`` are known and would have to be prepared."""
    usable = list(visible_models())
    shown = {model.pk for model in usable}
    others = [model for model in every_model() if model.pk not in shown]
    return render(request, "catalogue/models.html", {"usable": usable, "others": others})
