"""JSON answers of the page's endpoints, and which refusal gets which HTTP status.

``{"error": {"code", "message", "field"}}``; 400 for what the caller can change, 404 for what is not
there (or somebody else's), 409 for a reused key, 429 beyond a rate or a budget, 503 when the queue
is full or away. The last two say when to come back, in ``Retry-After``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _

from portal.conversations.models import Conversation
from portal.jobs.errors import (
    IdempotencyConflict,
    InvalidRequest,
    JobRefused,
)
from portal.jobs.models import Job
from portal.jobs.said import said
from portal.metrics import JOBS_REFUSED
from portal.usage.limits import RateLimited
from portal.usage.services import OverBudget

View = Callable[..., HttpResponse]


def error(
    status: int,
    code: str,
    message: str,
    *,
    field: str | None = None,
    retry_after: int | None = None,
) -> JsonResponse:
    answer = JsonResponse(
        {"error": {"code": code, "message": message, "field": field}}, status=status
    )
    if retry_after is not None:
        answer["Retry-After"] = str(retry_after)
    return answer


def refusals_answered(view: View) -> View:
    """Turn what services raise into answers."""

    @wraps(view)
    def answered(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except JobRefused as refusal:
            JOBS_REFUSED.labels(refusal.code).inc()
            return _refused(refusal)
        except OverBudget as refusal:
            JOBS_REFUSED.labels("over_budget").inc()
            return error(429, "over_budget", said(refusal), retry_after=refusal.retry_after)
        except RateLimited as refusal:
            JOBS_REFUSED.labels("rate_limited").inc()
            return error(429, "rate_limited", str(refusal), retry_after=refusal.retry_after)
        except (Conversation.DoesNotExist, Job.DoesNotExist):
            return error(404, "not_found", _("There is nothing here, or it is somebody else's."))

    return answered


def _refused(refusal: JobRefused) -> JsonResponse:
    if isinstance(refusal, IdempotencyConflict) or refusal.code == "idempotency_conflict":
        status = 409
    elif isinstance(refusal, InvalidRequest):
        status = {"model_not_found": 404, "request_too_large": 413}.get(refusal.code, 400)
    else:
        status = 503
    return error(
        status,
        refusal.code,
        said(refusal),
        field=refusal.field,
        retry_after=refusal.retry_after if status == 503 else None,
    )
