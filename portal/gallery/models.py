"""Apps that people publish: an app, its versions, and runs of a version. A run's work is jobs."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from portal.jobs.models import Job
from portal.teams.models import Team


class App(models.Model):
    class Category(models.TextChoices):
        CUSTOMER_SERVICE = "customer-service", _("Customer service")
        TRANSLATION = "translation", _("Translation")
        SUMMARIES = "summaries", _("Summaries")
        CODE = "code", _("Code")
        LEARNING = "learning", _("Learning")
        ANALYSIS = "analysis", _("Text analysis")
        WRITING = "writing", _("Writing")
        OTHER = "other", _("Other")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.CharField(
        max_length=64, unique=True, validators=[RegexValidator(r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    )
    team = models.ForeignKey(
        Team,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="apps",
        help_text="None for the apps that come with LLMasOS.",
    )
    author = models.CharField(max_length=120, help_text="Who made it, as the gallery shows it.")
    icon = models.CharField(max_length=8, help_text="One or two characters.")
    category = models.CharField(max_length=20, choices=Category)
    name_en = models.CharField(max_length=80)
    name_zh = models.CharField(max_length=80)
    description_en = models.CharField(max_length=240)
    description_zh = models.CharField(max_length=240)
    # RESTRICT, not PROTECT: a version that is shown stays while its app does, and falls with it.
    current = models.ForeignKey(
        "AppVersion", on_delete=models.RESTRICT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug

    @property
    def name(self) -> str:
        """In the reader's language."""
        return self.name_zh if _chinese() else self.name_en

    @property
    def description(self) -> str:
        return self.description_zh if _chinese() else self.description_en


class AppVersion(models.Model):
    """A frozen definition (``portal.gallery.definition.Definition`` as JSON)."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    definition = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["app", "number"], name="one_app_version")]

    def __str__(self) -> str:
        return f"{self.app.slug}@{self.number}"


class AppRun(models.Model):
    class Kind(models.TextChoices):
        TEXT = "text"
        SCORES = "scores"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(AppVersion, on_delete=models.CASCADE, related_name="runs")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="app_runs")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="app_runs"
    )
    session = models.CharField(max_length=64, blank=True, help_text="A visitor's session.")
    kind = models.CharField(max_length=8, choices=Kind)
    inputs = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    dropped_at = models.DateTimeField(null=True, help_text="When the inputs were dropped.")

    class Meta:
        indexes = [
            models.Index(
                fields=["team", "created_at"], condition=Q(dropped_at=None), name="runs_kept"
            )
        ]

    def __str__(self) -> str:
        return self.id.hex


class RunJob(models.Model):
    """A job of a run. A scored run has one for each label, in the labels' order."""

    run = models.ForeignKey(AppRun, on_delete=models.CASCADE, related_name="run_jobs")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="run_jobs")
    position = models.PositiveSmallIntegerField(default=0)
    label = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["run", "position"], name="one_run_job")]

    def __str__(self) -> str:
        return f"{self.run_id}[{self.position}]"


def _chinese() -> bool:
    return (get_language() or "").startswith("zh")
