"""Models that can be served: what they are, where their weights come from and where they run."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q


class CatalogueModel(models.Model):
    class Kind(models.TextChoices):
        BASE = "base"
        INSTRUCT = "instruct"

    class Placement(models.TextChoices):
        ALWAYS = "always"
        ON_DEMAND = "on_demand"
        OFF = "off"

    class State(models.TextChoices):
        ABSENT = "absent"
        PREPARING = "preparing"
        READY = "ready"
        FAILED = "failed"

    id = models.CharField(
        primary_key=True,
        max_length=64,
        validators=[RegexValidator(r"^[a-z0-9][a-z0-9._-]*$")],
    )
    name = models.CharField(max_length=120)
    family = models.CharField(max_length=40)
    parameters = models.BigIntegerField(default=0)
    context_length = models.PositiveIntegerField(default=0)
    vocab_size = models.PositiveIntegerField(default=0)
    licence = models.CharField(max_length=120)
    licence_url = models.URLField(blank=True)
    kind = models.CharField(max_length=12, choices=Kind)
    source = models.CharField(max_length=300)
    commit = models.CharField(max_length=64, blank=True, help_text="The exact one it resolved to.")
    digest = models.CharField(max_length=80, blank=True)
    format = models.CharField(max_length=16, blank=True)
    bytes = models.BigIntegerField(default=0)
    placement = models.CharField(max_length=12, choices=Placement, default=Placement.OFF)
    state = models.CharField(max_length=12, choices=State, default=State.ABSENT)
    error = models.TextField(blank=True)
    prepared_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(state="ready") | ~Q(digest=""), name="ready_model_has_digest"
            )
        ]

    def __str__(self) -> str:
        return self.id
