"""What teams and their keys may spend and have spent, in tokens.

Roll-ups name keys and members by plain numbers instead of foreign keys, so that history stays when
they go, and so that "none" (a page, a visitor) is a value that a unique constraint can hold.
"""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from portal.teams.models import Team

NO_KEY = uuid.UUID(int=0)
NO_MEMBER = 0


class Reservation(models.Model):
    """The worst case of one job, held until its end is recorded, and what it will be booked as."""

    job_id = models.UUIDField(primary_key=True)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="reservations")
    tokens = models.PositiveBigIntegerField()
    model = models.CharField(max_length=64, blank=True)
    source = models.CharField(max_length=120, blank=True)
    key_id = models.UUIDField(default=NO_KEY)
    member_id = models.BigIntegerField(default=NO_MEMBER)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.tokens} tokens for {self.job_id}"


class Budget(models.Model):
    """A team's limit for a calendar month, UTC; no row means no limit."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, related_name="budget")
    monthly_tokens = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return f"{self.monthly_tokens} tokens a month for {self.team}"


class UsageMonth(models.Model):
    """The running sums of a calendar month, UTC: a team's (``NO_KEY``), and each key's.

    A job belongs to the month in which it was reserved, whenever it ends.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="usage_months")
    key_id = models.UUIDField(default=NO_KEY)
    month = models.DateField()
    spent = models.PositiveBigIntegerField(default=0)
    reserved = models.PositiveBigIntegerField(default=0)
    told = models.PositiveSmallIntegerField(default=0, help_text="The last alert sent, percent.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "key_id", "month"], name="one_month")
        ]
        indexes = [models.Index(fields=["month"])]

    def __str__(self) -> str:
        return f"{self.team_id} in {self.month:%Y-%m}"


class RollUp(models.Model):
    """Jobs and tokens of one team by model, app, key and member; written as jobs are recorded,
    into the time in which they were reserved."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="%(class)ss")
    model = models.CharField(max_length=64)
    source = models.CharField(max_length=120)
    key_id = models.UUIDField(default=NO_KEY)
    member_id = models.BigIntegerField(default=NO_MEMBER)
    jobs = models.PositiveIntegerField(default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0)

    class Meta:
        abstract = True


class UsageHour(RollUp):
    hour = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "hour", "model", "source", "key_id", "member_id"], name="one_hour"
            )
        ]

    def __str__(self) -> str:
        return f"{self.team} at {self.hour:%Y-%m-%d %H}h"


class UsageDay(RollUp):
    """The hours of a day, UTC, once more: what pages read, which show months."""

    day = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "day", "model", "source", "key_id", "member_id"], name="one_day"
            )
        ]

    def __str__(self) -> str:
        return f"{self.team} on {self.day}"
