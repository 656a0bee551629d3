"""Conversations go, and what was asked in them, when their team no longer keeps such things."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.utils import timezone

from portal.conversations.models import Conversation, Message
from portal.teams.selectors import retention

BATCH = 100


def drop_old() -> bool:
    """At most one batch of each team's; whether there may be more."""
    found = [_drop(team, oldest) for team, oldest in retention(now=timezone.now())]
    return any(found)


def _drop(team: uuid.UUID, oldest: datetime) -> bool:
    """Whole conversations in which nothing was said since; and what is old in the others."""
    idle = Conversation.objects.filter(team=team, updated_at__lt=oldest).order_by("updated_at")
    ids = list(idle.values_list("pk", flat=True)[:BATCH])
    Conversation.objects.filter(pk__in=ids, updated_at__lt=oldest).delete()
    said = Message.objects.filter(conversation__team=team, created_at__lt=oldest).exclude(text="")
    old = list(said.values_list("pk", flat=True)[:BATCH])
    Message.objects.filter(pk__in=old).update(text="")
    return BATCH in (len(ids), len(old))
