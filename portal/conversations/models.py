"""Saved conversations: a tree of messages, so that editing and regenerating lose nothing."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from portal.jobs.models import Job
from portal.teams.models import Team


class Conversation(models.Model):
    class Mode(models.TextChoices):
        CHAT = "chat"
        COMPLETION = "completion"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="conversations")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="conversations"
    )
    session = models.CharField(max_length=64, blank=True, help_text="A visitor's session.")
    title = models.CharField(max_length=200, blank=True)
    mode = models.CharField(max_length=12, choices=Mode)
    model = models.CharField(max_length=64)
    settings = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["team", "user", "-updated_at"])]

    def __str__(self) -> str:
        return self.title or self.id.hex


class Message(models.Model):
    class Role(models.TextChoices):
        USER = "user"
        ASSISTANT = "assistant"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages"
    )
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="children")
    role = models.CharField(max_length=12, choices=Role)
    text = models.TextField(blank=True)
    job = models.ForeignKey(Job, on_delete=models.SET_NULL, null=True, related_name="messages")
    active = models.BooleanField(default=True, help_text="On the branch that is shown.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return f"{self.role}: {self.text[:40]}"
