"""Conversations, for operators: that they are there, not what is in them."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin

from portal.admin import HouseAdmin
from portal.conversations.models import Conversation


@admin.register(Conversation)
class ConversationAdmin(HouseAdmin):
    list_display = ("id", "team", "mode", "model", "created_at", "updated_at", "deleted_at")
    list_filter = ("mode", "model")
    ordering = ("-updated_at",)
    hidden: ClassVar[tuple[str, ...]] = ("title", "settings", "session")
