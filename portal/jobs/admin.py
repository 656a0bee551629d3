"""Jobs, for operators: to read. What was asked and answered stays with its team."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin

from portal.admin import HouseAdmin
from portal.jobs.models import Job


@admin.register(Job)
class JobAdmin(HouseAdmin):
    list_display = ("id", "team", "source", "model", "state", "reason", "queued_at", "recorded_at")
    list_filter = ("state", "model")
    search_fields = ("id", "source", "team__name")
    ordering = ("-queued_at",)
    hidden: ClassVar[tuple[str, ...]] = ("input_ids", "prefixes", "entries", "session")
