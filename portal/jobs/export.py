"""The jobs that one person asked for."""

from __future__ import annotations

from portal.accounts.export import Rows, section
from portal.accounts.models import User
from portal.jobs.models import Job
from portal.jobs.selectors import said


@section("jobs")
def jobs(user: User) -> Rows:
    asked = Job.objects.filter(user=user).select_related("team").order_by("queued_at")
    for job in asked.iterator(chunk_size=100):
        yield {
            "id": job.pk,
            "team": job.team.name,
            "model": job.model_id,
            "source": job.source,
            "state": job.state,
            "reason": job.reason,
            "queued": job.queued_at,
            "ended": job.recorded_at,
            "sampling": job.sampling,
            "seed": job.seed,
            "prompt_token_ids": job.input_ids,
            "answer": said(job).text,
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": job.completion_tokens,
        }
