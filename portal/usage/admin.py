"""Budgets and usage, for operators."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from portal.admin import HouseAdmin, acting
from portal.usage.models import Budget, Reservation, UsageHour
from portal.usage.services import set_budget


@admin.register(Budget)
class BudgetAdmin(HouseAdmin):
    """The one thing that can be added here; deleting a budget lifts the limit."""

    list_display = ("team", "monthly_tokens")
    search_fields = ("team__name",)
    autocomplete_fields = ("team",)
    editable: ClassVar[tuple[str, ...]] = ("monthly_tokens",)
    hidden: ClassVar[tuple[str, ...]] = ("id",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_add_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return super().get_readonly_fields(request, obj) if obj else []

    def save_model(self, request: HttpRequest, obj: Budget, form: Any, change: bool) -> None:
        set_budget(team=obj.team, monthly_tokens=obj.monthly_tokens, actor=acting(request))
        obj.pk = Budget.objects.get(team=obj.team).pk

    def delete_model(self, request: HttpRequest, obj: Budget) -> None:
        set_budget(team=obj.team, monthly_tokens=None, actor=acting(request))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for budget in queryset.select_related("team"):
            self.delete_model(request, budget)


@admin.register(Reservation)
class ReservationAdmin(HouseAdmin):
    list_display = ("job_id", "team", "tokens", "created_at")


@admin.register(UsageHour)
class UsageHourAdmin(HouseAdmin):
    list_display = ("hour", "team", "model", "source", "jobs", "prompt_tokens", "completion_tokens")
    show_full_result_count = False
    list_filter = ("model",)
    search_fields = ("team__name", "source")
    ordering = ("-hour",)
