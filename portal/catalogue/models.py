"""Models that can be served: what they are, where their weights come from and where they run."""

from __future__ import annotations

from datetime import timedelta

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from portal.config import MODEL_ID

STALE = timedelta(seconds=30)
"""Without a sign of life for this long, a preparation is dead."""


class CatalogueModel(models.Model):
    class Kind(models.TextChoices):
        BASE = "base"
        INSTRUCT = "instruct"
        EMBEDDING = "embedding"

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
    dimensions = models.PositiveIntegerField(
        default=0, help_text="Numbers in a vector, of a model that makes embeddings; else 0."
    )
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
    origin = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="lighter",
        help_text="The model that this is a lighter version of.",
    )
    figures = models.JSONField(
        default=dict,
        blank=True,
        help_text="Measured here: digest, memory (bytes), speed (tokens/s by batch), perplexity.",
    )
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
    def embeds(self) -> bool:
        """Whether it makes vectors of texts, and can't go on from one."""
        return self.kind == self.Kind.EMBEDDING

    @property
    def lighter_versions(self) -> list[CatalogueModel]:
        """Those that were not removed, by name."""
        found = (model for model in self.lighter.all() if model.removed_at is None)
        return sorted(found, key=lambda model: model.pk)

    @property
    def stalled(self) -> bool:
        """Whether whoever prepared it gave no sign of life for too long."""
        begun = self.state == self.State.PREPARING
        return begun and (self.touched_at is None or self.touched_at < timezone.now() - STALE)

    @property
    def measured(self) -> bool:
        """Whether ``figures`` are those of the weights that lie here now."""
        return bool(self.digest) and self.figures.get("digest") == self.digest

    @property
    def size_change(self) -> float | None:
        """Against the origin's size on the disk, in per cent."""
        if self.origin is None or not self.origin.bytes or not self.bytes:
            return None
        return 100 * (self.bytes / self.origin.bytes - 1)

    @property
    def perplexity_change(self) -> dict[str, float]:
        """Against the origin's perplexity on the same texts, in per cent, by language."""
        if self.origin is None or not (self.measured and self.origin.measured):
            return {}
        if self.figures["tokens"] != self.origin.figures["tokens"]:
            return {}
        before, now = self.origin.figures["perplexity"], self.figures["perplexity"]
        return {name: 100 * (now[name] / before[name] - 1) for name in now if before.get(name)}

    @property
    def perplexities(self) -> list[tuple[str, float, float | None]]:
        """Language, perplexity and its change, for the page."""
        change = self.perplexity_change
        found = self.figures.get("perplexity", {}).items()
        return [(name, value, change.get(name)) for name, value in found]

    @property
    def is_local(self) -> bool:
        """Whether ``source`` is a path on this server, which is for operators' eyes."""
        return self.source.startswith("/")
