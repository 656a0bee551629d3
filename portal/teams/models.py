"""Teams own everything: jobs, keys, conversations, budgets. Every user has a personal one."""

from __future__ import annotations

import uuid

from auditlog.models import LogEntry
from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Team(models.Model):
    class Kind(models.TextChoices):
        PERSONAL = "personal"
        SHARED = "shared"
        ANONYMOUS = "anonymous"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=12, choices=Kind)
    weight = models.FloatField(default=1.0, help_text="Share of the workers against other teams.")
    retention_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="How long prompts and results are kept; empty: for good, 0: not at all.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    delete_at = models.DateTimeField(
        null=True, blank=True, help_text="When it is removed for good; until then it is hidden."
    )

    class Meta:
        indexes = [
            models.Index(
                fields=["delete_at"], condition=Q(delete_at__isnull=False), name="teams_to_remove"
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["kind"], condition=Q(kind="anonymous"), name="one_anonymous_team"
            ),
            models.CheckConstraint(condition=Q(weight__gt=0), name="team_weight_positive"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    class Role(models.TextChoices):
        OWNER = "owner"
        ADMIN = "admin"
        DEVELOPER = "developer"
        VIEWER = "viewer"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=12, choices=Role)
    personal = models.BooleanField(default=False, help_text="The user's own team.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="one_membership"),
            models.UniqueConstraint(
                fields=["user"], condition=Q(personal=True), name="one_personal_team"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.team} as {self.role}"


class Invitation(models.Model):
    """A way into a team, for one person and one time. Only the token's digest is kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=12, choices=Membership.Role)
    email = models.EmailField(
        blank=True, help_text="Whom it is for; empty for whoever has the link."
    )
    digest = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["team", "-created_at"],
                condition=Q(accepted_at=None, revoked_at=None),
                name="invitations_open",
            )
        ]

    def __str__(self) -> str:
        return self.email or "link"


class TeamLog(models.Model):
    """Which team may read a line of the audit log; its own table, so that reading needs no scan."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="log")
    entry = models.OneToOneField(LogEntry, on_delete=models.CASCADE, related_name="+")

    class Meta:
        indexes = [models.Index(fields=["team", "-id"], name="team_log_newest_first")]

    def __str__(self) -> str:
        return str(self.entry)


def everyday_scopes() -> list[str]:
    """What a key may do unless somebody says otherwise: everything but changing the team."""
    return ["models", "chat", "apps", "training"]


class ApiKey(models.Model):
    """A secret of a team and what may be done with it. Only its HMAC is kept; ``prefix`` finds it.

    After a rotation ``previous_digest`` is good as well, until ``previous_until``. Limits that are
    empty are the house's; no ``allowed_models`` means all.
    """

    class Scope(models.TextChoices):
        MODELS = "models"
        CHAT = "chat"
        APPS = "apps"
        TRAINING = "training"
        ADMIN = "admin"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="api_keys")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    name = models.CharField(max_length=120)
    prefix = models.CharField(max_length=16, unique=True)
    last_four = models.CharField(max_length=4)
    digest = models.CharField(max_length=64)
    previous_digest = models.CharField(max_length=64, blank=True)
    previous_last_four = models.CharField(max_length=4, blank=True)
    previous_until = models.DateTimeField(null=True, blank=True)
    scopes = models.JSONField(default=everyday_scopes)
    allowed_models = models.JSONField(default=list, blank=True)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    monthly_tokens = models.PositiveBigIntegerField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    ceilings = models.JSONField(
        default=dict, blank=True, help_text="What its maker may not pass: see ceilings.py."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["team", "-created_at"])]

    def __str__(self) -> str:
        return f"{self.name} (…{self.last_four})"

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()
