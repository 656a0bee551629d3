"""Writes about responses: keep one, drop one. Making the job is ``portal.jobs.services``' part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from portal.jobs import services as jobs
from portal.jobs.models import Job
from portal.responses.models import Response


def create_response(
    *,
    draft: jobs.Draft | Job,
    previous: Response | None,
    background: bool,
    input: Sequence[dict[str, Any]],
    request: dict[str, Any],
) -> Response:
    """Submit the draft and keep what was asked, together or not at all.

    A draft that is a job already came with an Idempotency-Key that was used before: its response is
    the one that was kept then. Raises what ``submit_job`` raises.
    """
    with transaction.atomic():
        job = jobs.submit_job(draft) if isinstance(draft, jobs.Draft) else draft
        made, _ = Response.objects.get_or_create(
            job=job,
            defaults={
                "thread": previous.thread if previous else job.pk,
                "previous_id": previous.pk if previous else None,
                "background": background,
                "input": list(input),
                "request": request,
            },
        )
    return made


def delete_response(*, response: Response) -> bool:
    """Forget what was asked, and stop the job if it still runs; ``False`` if it was gone already.

    Raises:
        Unavailable: the queue can't be reached.
    """
    jobs.cancel_job(job=response.job)
    deleted, _ = Response.objects.filter(pk=response.pk).delete()
    return bool(deleted)
