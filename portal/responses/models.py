"""Answers that callers of the API keep here, to read again or to go on from."""

from __future__ import annotations

from django.db import models

from portal.jobs.models import Job

PREFIX = "resp_"


class Response(models.Model):
    """What was asked; the answer is its job's log. Its id is the job's."""

    job = models.OneToOneField(
        Job, primary_key=True, on_delete=models.CASCADE, related_name="response"
    )
    thread = models.UUIDField(db_index=True, help_text="The first response of the conversation.")
    previous_id = models.UUIDField(null=True, help_text="May have been deleted since.")
    background = models.BooleanField(default=False)
    input = models.JSONField(help_text="Items, as OpenAI has them, each with an id.")
    request = models.JSONField(help_text="The other fields, as they are said again in the answer.")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return public_id(self.job_id.hex)


def public_id(job_id: str) -> str:
    return PREFIX + job_id
