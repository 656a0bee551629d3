"""People, for operators."""

from __future__ import annotations

from typing import ClassVar

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from portal.accounts.models import OperatorLink, User
from portal.accounts.services import make_operator, set_active
from portal.admin import HouseAdmin, acting

# What allauth would let operators write by hand, past our services and the log.
for model in (Group, Authenticator, SocialAccount, SocialApp, SocialToken, UserSession):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(User)
class UserAdmin(HouseAdmin):
    list_display = ("email", "name", "is_superuser", "is_active", "date_joined", "last_login")
    list_filter = ("is_superuser", "is_active")
    search_fields = ("email", "name")
    ordering = ("-date_joined",)
    hidden: ClassVar[tuple[str, ...]] = ("password",)
    actions = ("disable", "enable", "promote")

    @admin.action(description=_("Keep out"))
    def disable(self, request: HttpRequest, users: QuerySet[User]) -> None:
        for user in users:
            if user == acting(request):
                self.message_user(request, _("You can't keep yourself out."), messages.ERROR)
            else:
                set_active(user=user, active=False, actor=acting(request))

    @admin.action(description=_("Let in again"))
    def enable(self, request: HttpRequest, users: QuerySet[User]) -> None:
        for user in users:
            set_active(user=user, active=True, actor=acting(request))

    @admin.action(description=_("Make operators"))
    def promote(self, request: HttpRequest, users: QuerySet[User]) -> None:
        for user in users:
            make_operator(user=user, actor=acting(request))


@admin.register(OperatorLink)
class OperatorLinkAdmin(HouseAdmin):
    list_display = ("created_at", "expires_at", "used_at", "used_by")
    hidden: ClassVar[tuple[str, ...]] = ("digest",)
