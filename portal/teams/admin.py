"""Teams and their keys, for operators."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from portal.admin import HouseAdmin, acting
from portal.teams.models import ApiKey, Membership, Team
from portal.teams.services import revoke_key, set_weight


@admin.register(Team)
class TeamAdmin(HouseAdmin):
    list_display = ("name", "kind", "weight", "created_at")
    list_filter = ("kind",)
    search_fields = ("name", "memberships__user__email")
    editable: ClassVar[tuple[str, ...]] = ("weight",)

    def save_model(self, request: HttpRequest, obj: Team, form: Any, change: bool) -> None:
        set_weight(team=obj, weight=obj.weight, actor=acting(request))


@admin.register(Membership)
class MembershipAdmin(HouseAdmin):
    list_display = ("user", "team", "role", "personal", "created_at")
    list_filter = ("role",)
    search_fields = ("user__email", "team__name")


@admin.register(ApiKey)
class ApiKeyAdmin(HouseAdmin):
    list_display = ("name", "prefix", "team", "created_by", "last_used_at", "revoked_at")
    search_fields = ("name", "prefix", "team__name", "created_by__email")
    hidden: ClassVar[tuple[str, ...]] = ("digest",)
    actions = ("revoke",)

    @admin.action(description=_("Revoke"))
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        for key in keys:
            revoke_key(key=key, actor=acting(request))
