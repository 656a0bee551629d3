"""Jobs. The row is the truth; the fair queue is the order; a message is only a wake-up."""

from __future__ import annotations

import uuid
from itertools import takewhile

from django.conf import settings
from django.db import models
from django.db.models import Q

from portal.catalogue.models import CatalogueModel
from portal.teams.models import Team

SHARED = "shared:"
"""What the salts of shared prefixes begin with: no team's and no visitor's does."""


class Job(models.Model):
    class State(models.TextChoices):
        OPEN = "open"
        FINISHED = "finished"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="jobs")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="jobs"
    )
    session = models.CharField(max_length=64, blank=True, help_text="A visitor's session.")
    source = models.CharField(max_length=120)
    model = models.ForeignKey(CatalogueModel, on_delete=models.PROTECT, related_name="jobs")
    model_digest = models.CharField(max_length=80)
    format = models.CharField(max_length=16)
    input_ids = models.JSONField()
    lengths = models.JSONField(
        default=list, help_text="Of an encoder's texts, which follow each other in input_ids."
    )
    prefixes = models.JSONField(default=list)
    sampling = models.JSONField()
    seed = models.BigIntegerField()
    deadline = models.FloatField(null=True)
    idempotency_key = models.CharField(max_length=128, blank=True)
    request_digest = models.CharField(max_length=64, blank=True)
    epoch = models.PositiveIntegerField(
        default=0, help_text="Above every epoch that a lost Redis may have given out."
    )

    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    reason = models.CharField(max_length=40, blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    error_message = models.TextField(blank=True)
    log = models.BinaryField(null=True, help_text="The log once it has ended: see archive.py.")
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    cached_tokens = models.PositiveIntegerField(default=0)

    queued_at = models.DateTimeField(auto_now_add=True)
    claimed_at = models.DateTimeField(null=True)
    first_token_at = models.DateTimeField(null=True)
    last_token_at = models.DateTimeField(null=True)
    recorded_at = models.DateTimeField(null=True)

    fleeting = models.BooleanField(default=False, help_text="Its team keeps nothing once read.")
    read_at = models.DateTimeField(null=True, help_text="When a fleeting job's end was read.")
    dropped_at = models.DateTimeField(null=True, help_text="When prompt and result were dropped.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "idempotency_key"],
                condition=~Q(idempotency_key=""),
                name="one_job_per_idempotency_key",
            )
        ]
        indexes = [
            models.Index(fields=["team", "-queued_at"]),
            models.Index(fields=["queued_at"], condition=Q(state="open"), name="jobs_unfinished"),
            models.Index(
                fields=["team", "recorded_at"], condition=Q(dropped_at=None), name="jobs_kept"
            ),
            models.Index(
                fields=["read_at"],
                condition=Q(fleeting=True, dropped_at=None),
                name="jobs_fleeting",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id.hex} ({self.state})"

    @property
    def pinned(self) -> int:
        """The prompt's first tokens that callers share: workers keep what they computed of them."""
        shared = takewhile(lambda prefix: prefix[0].startswith(SHARED), self.prefixes)
        return sum(length for _, length in shared)
