"""What teams may spend and have spent, in tokens."""

from __future__ import annotations

from django.db import models

from portal.teams.models import Team


class Reservation(models.Model):
    """The worst case of one job, held until its end is recorded, and what it will be booked as."""

    job_id = models.UUIDField(primary_key=True)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="reservations")
    tokens = models.PositiveBigIntegerField()
    model = models.CharField(max_length=64, blank=True)
    source = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.tokens} tokens for {self.job_id}"


class Budget(models.Model):
    """A team's limit for a calendar month, UTC; no row means no limit."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, related_name="budget")
    monthly_tokens = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return f"{self.monthly_tokens} tokens a month for {self.team}"


class UsageHour(models.Model):
    """Tokens of one team in one hour, by model and source; written as jobs are recorded."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="usage_hours")
    hour = models.DateTimeField()
    model = models.CharField(max_length=64)
    source = models.CharField(max_length=120)
    jobs = models.PositiveIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "hour", "model", "source"], name="one_hour")
        ]

    def __str__(self) -> str:
        return f"{self.team} at {self.hour:%Y-%m-%d %H}h"
