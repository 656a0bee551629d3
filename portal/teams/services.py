"""Writes to teams: the personal team, the anonymous one and API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from portal.accounts.models import User
from portal.teams.models import ApiKey, Membership, Team

KEY_PATTERN = re.compile(r"llm_([A-Za-z0-9_-]{8})_([A-Za-z0-9_-]{43})")
LAST_USE_PRECISION = timedelta(minutes=1)


def ensure_personal_team(user: User) -> Team:
    """The team that is ``user``'s own, made if it is not there; safe to call at any time."""
    found = Team.objects.filter(memberships__user=user, memberships__personal=True).first()
    if found is not None:
        return found
    try:
        with transaction.atomic():
            team = Team.objects.create(name=_personal_name(user), kind=Team.Kind.PERSONAL)
            Membership.objects.create(
                team=team, user=user, role=Membership.Role.OWNER, personal=True
            )
            return team
    except IntegrityError:  # somebody else was first: the database holds one for each user
        return Team.objects.get(memberships__user=user, memberships__personal=True)


def _personal_name(user: User) -> str:
    return (user.name or user.email.partition("@")[0])[:120]


def anonymous_team() -> Team:
    """The one team that all visitors without an account share."""
    team, _created = Team.objects.get_or_create(
        kind=Team.Kind.ANONYMOUS, defaults={"name": "Visitors"}
    )
    return team


def create_key(*, team: Team, user: User, name: str) -> tuple[ApiKey, str]:
    """A new key and its plaintext, which is never readable again.

    The plaintext is ``llm_<prefix>_<secret>``: 48 random bits to find the row, 256 to prove it.
    """
    prefix = secrets.token_urlsafe(6)
    secret = secrets.token_urlsafe(32)
    plaintext = f"llm_{prefix}_{secret}"
    key = ApiKey.objects.create(
        team=team,
        created_by=user,
        name=name,
        prefix=prefix,
        last_four=plaintext[-4:],
        digest=_digest(plaintext),
    )
    return key, plaintext


def authenticate_key(plaintext: str) -> ApiKey | None:
    """The live key that ``plaintext`` opens, with its team; ``None`` for anything else."""
    match = KEY_PATTERN.fullmatch(plaintext)
    key = (
        ApiKey.objects.select_related("team", "created_by").filter(prefix=match[1]).first()
        if match
        else None
    )
    expected = key.digest if key else "0" * 64
    if not hmac.compare_digest(_digest(plaintext), expected) or key is None:
        return None
    if key.revoked_at is not None or not key.created_by.is_active:
        return None
    _touch(key)
    return key


def _touch(key: ApiKey) -> None:
    """Note the use, at most once a minute: a busy key must not write on every call."""
    now = timezone.now()
    if key.last_used_at is None or key.last_used_at <= now - LAST_USE_PRECISION:
        stale = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USE_PRECISION)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


def revoke_key(*, key: ApiKey) -> bool:
    """End a key for good; ``False`` if it had ended already."""
    now = timezone.now()
    return bool(ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now))


def _digest(plaintext: str) -> str:
    pepper = settings.API_KEY_PEPPER.encode()
    return hmac.new(pepper, plaintext.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
