"""The OpenAPI 3.1 description of all routes, made from the code."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from portal.api.dialect import api


@cache
def described() -> dict[str, Any]:
    """The description, as a program reads it."""
    found: dict[str, Any] = dict(api.get_openapi_schema(path_prefix=""))
    found["servers"] = [{"url": settings.LLMASOS.prefix or "/"}]
    return found


@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """Public: it says nothing that the documentation doesn't."""
    return JsonResponse(described())
