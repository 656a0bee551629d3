"""Models that can be served: what they are, where their weights come from and where they run."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from portal.config import MODEL_ID


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

    id = models.CharField(primary_key=True, max_length=64, validators=[RegexValidator(MODEL_ID)])
    name = models.CharField(max_length=120)
    family = models.CharField(max_length=40, blank=True)
    parameters = models.BigIntegerField(default=0)
    context_length = models.PositiveIntegerField(default=0)
    vocab_size = models.PositiveIntegerField(default=0)
    licence = models.CharField(max_length=120)
    licence_url = models.URLField(blank=True)
    kind = models.CharField(max_length=12, choices=Kind)
    source = models.CharField(max_length=300)
    price_input = models.DecimalField(
        max_digits=12,
        decimal_places=4,
        null=True,
        blank=True,
        help_text="Of a million prompt tokens; empty: no price.",
    )
    price_output = models.DecimalField(
        max_digits=12,
        decimal_places=4,
        null=True,
        blank=True,
        help_text="Of a million generated tokens; empty: no price.",
    )
    builtin = models.BooleanField(default=False, help_text="Comes with the program.")
    commit = models.CharField(max_length=64, blank=True, help_text="The exact one it resolved to.")
    digest = models.CharField(max_length=80, blank=True)
    format = models.CharField(max_length=16, blank=True)
    bytes = models.BigIntegerField(default=0)
    placement = models.CharField(max_length=12, choices=Placement, default=Placement.OFF)
    state = models.CharField(max_length=12, choices=State, default=State.ABSENT)
    progress = models.FloatField(default=0, help_text="Of preparing, from 0 to 1.")
    message = models.CharField(max_length=200, blank=True, help_text="What preparing does now.")
    touched_at = models.DateTimeField(null=True, blank=True, help_text="A sign of life.")
    error = models.TextField(blank=True)
    prepared_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(state="ready") | ~Q(digest=""), name="ready_model_has_digest"
            )
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_local(self) -> bool:
        """Whether ``source`` is a path on this server, which is for operators' eyes."""
        return self.source.startswith("/")
