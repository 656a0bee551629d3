"""Writes to teams: people's own teams, the visitors' one and API keys.

KeyRefused      a key can't be made: bad name or too many; the text says what to do
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from portal import audit
from portal.accounts.models import User
from portal.accounts.services import create_user
from portal.teams.models import ApiKey, Membership, Team
from portal.teams.rules import LEAST, MANAGE_KEYS, roles_from

KEY_LIMIT = 100
KEY_PATTERN = re.compile(r"llm_([A-Za-z0-9_-]{8})_([A-Za-z0-9_-]{43})")
LAST_USE_PRECISION = timedelta(minutes=1)


class KeyRefused(Exception):
    """The text is for the person who asked."""


def register(
    *, email: str, password: str, operator: bool = False, actor: User | None = None
) -> User:
    """A user with a personal team; raises what ``accounts.services.create_user`` raises."""
    with transaction.atomic():
        user = create_user(email=email, password=password, operator=operator, actor=actor)
        ensure_personal_team(user=user)
    return user


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


def set_weight(*, team: Team, weight: float, actor: User | None = None) -> None:
    """The team's share of the workers against other teams; above 0."""
    with transaction.atomic():
        row = Team.objects.select_for_update().get(pk=team.pk)
        if row.weight != weight:
            changes = {"weight": (row.weight, weight)}
            Team.objects.filter(pk=team.pk).update(weight=weight)
            audit.record(actor=actor, action="update", instance=team, changes=changes)


def create_key(*, team: Team, user: User, name: str) -> tuple[ApiKey, str]:
    """A new key and its plaintext, which is never readable again.

    The plaintext is ``llm_<prefix>_<secret>``: 48 random bits to find the row, 256 to prove it.
    Raises ``KeyRefused``.
    """
    name = " ".join(name.replace("\0", "").split())
    if not 1 <= len(name) <= 120:
        raise KeyRefused(_("A key's name has 1 to 120 characters."))
    if ApiKey.objects.filter(team=team, revoked_at=None).count() >= KEY_LIMIT:
        raise KeyRefused(_("This team has 100 keys already. Revoke one that is no longer used."))
    prefix = secrets.token_urlsafe(6)
    plaintext = f"llm_{prefix}_{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        key = ApiKey.objects.create(
            team=team,
            created_by=user,
            name=name,
            prefix=prefix,
            last_four=plaintext[-4:],
            digest=_digest(plaintext),
        )
        audit.record(actor=user, action="create", instance=key)
    return key, plaintext


def authenticate_key(plaintext: str) -> ApiKey | None:
    """The live key that ``plaintext`` opens, with its team and maker; ``None`` for anything else.

    A key lives as long as it is not revoked and its maker is active and still may hold keys in the
    team. A wrong secret takes as long to refuse as a right one to accept.
    """
    match = KEY_PATTERN.fullmatch(plaintext)
    key = _live_keys().filter(prefix=match[1]).first() if match else None
    expected = key.digest if key else "0" * 64
    if not hmac.compare_digest(_digest(plaintext), expected) or key is None:
        return None
    _touch(key)
    return key


def _live_keys() -> QuerySet[ApiKey]:
    holders = Membership.objects.filter(
        team=OuterRef("team"), user=OuterRef("created_by"), role__in=roles_from(LEAST[MANAGE_KEYS])
    )
    keys = ApiKey.objects.select_related("team", "created_by")
    return keys.filter(Exists(holders), revoked_at=None, created_by__is_active=True)


def is_key_live(key: ApiKey) -> bool:
    """Whether a key that was good once still is; for streams that outlive one request."""
    return _live_keys().filter(pk=key.pk).exists()


def find_live_key(key_id: UUID) -> ApiKey | None:
    """The key with that id, if it still is good, with its team and maker."""
    return _live_keys().filter(pk=key_id).first()


def live_keys(ids: Iterable[UUID]) -> set[UUID]:
    """Which of the keys still are good, in one query."""
    return set(_live_keys().filter(pk__in=set(ids)).values_list("pk", flat=True))


def _touch(key: ApiKey) -> None:
    """Note the use, at most once a minute: a busy key must not write on every call."""
    now = timezone.now()
    if key.last_used_at is None or key.last_used_at <= now - LAST_USE_PRECISION:
        stale = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USE_PRECISION)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


def revoke_key(*, key: ApiKey, actor: User | None = None) -> bool:
    """End a key for good; ``False`` if it had ended already."""
    now = timezone.now()
    with transaction.atomic():
        changed = ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now)
        if changed:
            audit.record(
                actor=actor, action="update", instance=key, changes={"revoked_at": (None, now)}
            )
    return bool(changed)


def _digest(plaintext: str) -> str:
    pepper = settings.API_KEY_PEPPER.encode()
    return hmac.new(pepper, plaintext.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
