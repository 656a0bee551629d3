"""Carries out what was asked for with a grace period, and forgets what is long over."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from portal.teams.farewell import remove_accounts
from portal.teams.lifecycle import remove_teams
from portal.teams.models import Invitation

KEPT = timedelta(days=90)


def remove_what_is_due() -> None:
    remove_teams()
    remove_accounts()


def forget_old_invitations() -> None:
    Invitation.objects.filter(expires_at__lt=timezone.now() - KEPT).delete()
