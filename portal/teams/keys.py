"""Writes and checks of API keys.

KeyRefused      a key can't be made or changed so; the text says what to do, ``field`` where
KeyRejected     a key that was shown to us opens nothing; the text says why, to whoever holds it
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from portal import audit
from portal.accounts.models import User
from portal.config import MODEL_ID
from portal.statements import Selection
from portal.teams.ceilings import ceilings_after, exceeded
from portal.teams.models import ApiKey, Membership, Team, everyday_scopes
from portal.teams.rules import LEAST, MANAGE_KEYS, MANAGE_MEMBERS, allows, may, roles_from

KEY_LIMIT = 100
KEY_PATTERN = re.compile(r"llm_([A-Za-z0-9_-]{8})_([A-Za-z0-9_-]{43})")
LAST_USE_PRECISION = timedelta(minutes=1)
LONGEST_GRACE = timedelta(days=30)
MODELS_LIMIT = 100
MOST = 2**31 - 1
MOST_TOKENS = 2**53
"""What a script can still say exactly."""

_NO_DIGEST = "0" * 64


class KeyRefused(Exception):
    """The text is for the person who asked."""

    def __init__(self, message: str, field: str = "name") -> None:
        super().__init__(message)
        self.field = field


class KeyRejected(Exception):
    """``reason`` is for programs."""

    def __init__(self, reason: Literal["unknown", "revoked", "expired", "orphaned"]) -> None:
        texts = {
            "unknown": "This API key is mistyped or was deleted. Copy it again, or make a new one "
            "on the team's page.",
            "revoked": "This API key was revoked. Make a new one on the team's page.",
            "expired": "This API key has expired. Rotate it or make a new one on the team's page.",
            "orphaned": "Whoever made this API key may no longer use keys of its team. Somebody "
            "who does can make a new one on the team's page.",
        }
        super().__init__(texts[reason])
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key may do. ``None`` and no ``allowed_models``: no limit but the house's and the
    team's. Tokens are prompt and completion together, in their worst case per minute."""

    scopes: Sequence[str] = field(default_factory=everyday_scopes)
    allowed_models: Sequence[str] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    monthly_tokens: int | None = None
    expires_at: datetime | None = None

    @classmethod
    def of(cls, key: ApiKey) -> Terms:
        return cls(**{name: getattr(key, name) for name in cls.__dataclass_fields__})


def create_key(
    *, team: Team, user: User, name: str, terms: Terms | None = None
) -> tuple[ApiKey, str]:
    """A new key and its plaintext, which is never readable again.

    The plaintext is ``llm_<prefix>_<secret>``: 48 random bits to find the row, 256 to prove it.
    Raises ``KeyRefused``.
    """
    terms = terms or Terms()
    name = _name(name)
    _check(terms, team, user)
    if ApiKey.objects.filter(team=team, revoked_at=None).count() >= KEY_LIMIT:
        raise KeyRefused(_("This team has 100 keys already. Revoke one that is no longer used."))
    prefix = secrets.token_urlsafe(6)
    plaintext = _plaintext(prefix)
    with transaction.atomic():
        key = ApiKey.objects.create(
            team=team,
            created_by=user,
            name=name,
            prefix=prefix,
            last_four=plaintext[-4:],
            digest=_digest(plaintext),
            **_fields(terms),
        )
        audit.record(actor=user, action="create", instance=key)
    return key, plaintext


def update_key(*, key: ApiKey, name: str, terms: Terms, actor: User) -> bool:
    """Change what a live key is called and may do, from its next request on; ``False`` if it was
    revoked meanwhile. Raises ``KeyRefused``, also for what would widen a limit that somebody who
    manages the team has set."""
    fields: dict[str, Any] = {"name": _name(name)} | _fields(terms)
    with transaction.atomic():
        row = ApiKey.objects.select_for_update().filter(pk=key.pk, revoked_at=None).first()
        if row is None:
            return False
        _check(terms, row.team, actor, had=row)
        ceilings = _ceilings(row, terms, actor)
        changes = {n: (getattr(row, n), v) for n, v in fields.items() if getattr(row, n) != v}
        if changes:
            ApiKey.objects.filter(pk=key.pk).update(**fields, ceilings=ceilings)
            audit.record(actor=actor, action="update", instance=row, changes=changes)
    return True


def rotate_key(*, key: ApiKey, grace: timedelta, actor: User) -> str | None:
    """A new secret for the same key, with its limits and its history; the plaintext, once.

    The old secret works for ``grace`` more (0 to 30 days), one from an earlier rotation no longer.
    ``None`` if the key was revoked or rotated meanwhile. Raises ``KeyRefused``.
    """
    if not timedelta() <= grace <= LONGEST_GRACE:
        raise KeyRefused(_("The old secret may work for 0 to 30 days more."), "grace")
    plaintext, now = _plaintext(key.prefix), timezone.now()
    with transaction.atomic():
        changed = ApiKey.objects.filter(pk=key.pk, digest=key.digest, revoked_at=None).update(
            digest=_digest(plaintext),
            last_four=plaintext[-4:],
            previous_digest=key.digest if grace else "",
            previous_last_four=key.last_four if grace else "",
            previous_until=now + grace if grace else None,
        )
        if not changed:
            return None
        changes = {"last_four": (key.last_four, plaintext[-4:])}
        audit.record(actor=actor, action="update", instance=key, changes=changes)
    return plaintext


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


def open_key(plaintext: str) -> ApiKey:
    """The live key that ``plaintext`` opens, with its team and maker. One read, no write.

    A key lives as long as it is neither revoked nor expired, and its maker is active and still may
    hold keys in the team. A wrong secret takes as long to refuse as a right one to accept, and only
    who shows a right one is told what became of the key. Raises ``KeyRejected``.
    """
    match = KEY_PATTERN.fullmatch(plaintext)
    key, role = _found(match[1]) if match else (None, "")
    if not _is_secret_of(plaintext, key) or key is None:
        raise KeyRejected("unknown")
    if key.revoked_at is not None:
        raise KeyRejected("revoked")
    if key.is_expired:
        raise KeyRejected("expired")
    gone = key.team.delete_at or key.created_by.delete_at or not key.created_by.is_active
    if gone or not allows(role, MANAGE_KEYS):
        raise KeyRejected("orphaned")
    return key


def authenticate_key(plaintext: str) -> ApiKey | None:
    """``open_key`` for callers who need no reason; ``None`` for everything that is no live key."""
    try:
        return open_key(plaintext)
    except KeyRejected:
        return None


def _is_secret_of(plaintext: str, key: ApiKey | None) -> bool:
    """Whether it proves ``key``. Both comparisons always run."""
    digest = _digest(plaintext)
    present = hmac.compare_digest(digest, key.digest if key else _NO_DIGEST)
    in_grace = bool(key and key.previous_until and key.previous_until > timezone.now())
    before = hmac.compare_digest(digest, (key.previous_digest if key else "") or _NO_DIGEST)
    return present or (before and in_grace)


def _holders() -> Exists:
    """Whether a key's maker still may hold keys in its team, and neither is deleted."""
    return Exists(
        Membership.objects.filter(
            team=OuterRef("team"),
            user=OuterRef("created_by"),
            role__in=roles_from(LEAST[MANAGE_KEYS]),
            team__delete_at=None,
            user__delete_at=None,
        )
    )


_OPEN = Selection(
    """
    SELECT {api_key}, {team}, {maker}, membership.role FROM teams_apikey AS api_key
    JOIN teams_team AS team ON team.id = api_key.team_id
    JOIN accounts_user AS maker ON maker.id = api_key.created_by_id
    LEFT JOIN teams_membership AS membership
      ON membership.team_id = api_key.team_id AND membership.user_id = api_key.created_by_id
    WHERE api_key.prefix = %s
    """,
    api_key=ApiKey,
    team=Team,
    maker=User,
)


def _found(prefix: str) -> tuple[ApiKey | None, str]:
    """The key with its team and maker, and the maker's role in the team; empty: none."""
    found = _OPEN.first(prefix)
    if found is None:
        return None, ""
    key, key.team, key.created_by, role = found
    return key, role or ""


def live_keys(ids: Iterable[UUID]) -> set[UUID]:
    """Which of the keys still open their teams; for what outlives one request."""
    lasting = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    rows = ApiKey.objects.filter(lasting, _holders(), pk__in=list(ids), revoked_at=None)
    return set(rows.filter(created_by__is_active=True).values_list("pk", flat=True))


def find_live_key(key_id: UUID) -> ApiKey | None:
    """The key with that id, if it still opens its team, with its team and maker."""
    found = ApiKey.objects.select_related("team", "created_by").filter(pk__in=live_keys([key_id]))
    return found.first()


def is_key_live(key: ApiKey) -> bool:
    """Whether a key that was good once still is."""
    return bool(live_keys([key.pk]))


def is_use_worth_noting(key: ApiKey) -> bool:
    """Last use is kept to the minute: a busy key must not write on every call."""
    used = key.last_used_at
    return used is None or used <= timezone.now() - LAST_USE_PRECISION


def note_use(*, key: ApiKey) -> bool:
    """Write the use down, at most once a minute; not for the time in which somebody waits."""
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USE_PRECISION)
    return bool(ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now))


def _name(name: str) -> str:
    name = " ".join(name.replace("\0", "").split())
    if not 1 <= len(name) <= 120:
        raise KeyRefused(_("A key's name has 1 to 120 characters."))
    return name


def _fields(terms: Terms) -> dict[str, Any]:
    found = asdict(terms)
    return found | {"scopes": list(terms.scopes), "allowed_models": list(terms.allowed_models)}


def _check(terms: Terms, team: Team, user: User, had: ApiKey | None = None) -> None:
    known = ApiKey.Scope.values
    if not terms.scopes or any(scope not in known for scope in terms.scopes):
        raise KeyRefused(_("Choose at least one thing that the key may do."), "scopes")
    admin = ApiKey.Scope.ADMIN
    had_it = had is not None and admin in had.scopes
    if admin in terms.scopes and not had_it and not may(user, MANAGE_MEMBERS, team):
        raise KeyRefused(_("Only those who manage the team may give a key that right."), "scopes")
    wrong = [m for m in terms.allowed_models if len(m) > 64 or not re.fullmatch(MODEL_ID, m)]
    if wrong or len(terms.allowed_models) > MODELS_LIMIT:
        raise KeyRefused(_("Name up to 100 models by their ids."), "allowed_models")
    for name, most in (
        ("requests_per_minute", MOST),
        ("tokens_per_minute", MOST),
        ("monthly_tokens", MOST_TOKENS),
    ):
        value = getattr(terms, name)
        if value is not None and not 1 <= value <= most:
            raise KeyRefused(_("Give a whole number from 1 on, or leave it empty."), name)
    ends, had_ends = terms.expires_at, had.expires_at if had else None
    if ends is not None and ends != had_ends and ends <= timezone.now():
        raise KeyRefused(_("A key expires in the future. To end it now, revoke it."), "expires_at")


def _ceilings(key: ApiKey, terms: Terms, actor: User) -> dict[str, Any]:
    """What the key's maker is held to after ``actor`` has given it ``terms``."""
    known: dict[str, Any] = key.ceilings
    if may(actor, MANAGE_MEMBERS, key.team):
        own, before = key.created_by_id == actor.pk, _fields(Terms.of(key))
        return ceilings_after(known, before=before, after=_fields(terms), own=own)
    if name := exceeded(known, _fields(terms)):
        raise KeyRefused(
            _("Somebody who manages the team has limited this. Stay below it, or ask them."), name
        )
    return known


def _plaintext(prefix: str) -> str:
    return f"llm_{prefix}_{secrets.token_urlsafe(32)}"


def _digest(plaintext: str) -> str:
    pepper = settings.API_KEY_PEPPER.encode()
    return hmac.new(pepper, plaintext.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
