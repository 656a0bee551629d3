"""Writes to accounts: making people, making them operators, sending them away.

AccountError
├── BadEmail
├── EmailTaken
└── WeakPassword
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from urllib.parse import urlsplit

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from portal import audit
from portal.accounts.models import OperatorLink, User
from portal.accounts.selectors import by_email
from portal.accounts.tokens import digest

OPERATOR_LINK_LIFE = timedelta(hours=24)


class AccountError(Exception):
    """Its text tells the reader what to do next."""


class BadEmail(AccountError):
    pass


class EmailTaken(AccountError):
    pass


class WeakPassword(AccountError):
    pass


def create_user(
    *, email: str, password: str, operator: bool = False, actor: User | None = None
) -> User:
    """A user whose address counts as verified, because somebody trusted vouched for it.

    Raises ``BadEmail``, ``EmailTaken`` or ``WeakPassword``. Callers above ``teams`` want
    ``teams.services.register``, which adds the personal team.
    """
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise BadEmail(f"{email!r} is not an e-mail address.") from None
    if by_email(email):
        raise EmailTaken(f"{email} has an account already.")
    try:
        validate_password(password, User(email=email))
    except ValidationError as error:
        raise WeakPassword(" ".join(error.messages)) from None
    try:
        with transaction.atomic():
            user = User.objects.create_user(email, password)
            EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
            audit.record(actor=actor, action="create", instance=user)
            if operator:
                make_operator(user=user, actor=actor)
    except IntegrityError:  # somebody took it in between
        raise EmailTaken(f"{email} has an account already.") from None
    return user


def make_operator(*, user: User, actor: User | None = None) -> None:
    """Let ``user`` see and steer everything."""
    with transaction.atomic():
        changed = User.objects.filter(pk=user.pk, is_superuser=False).update(
            is_staff=True, is_superuser=True
        )
        if changed:
            audit.record(
                actor=actor, action="update", instance=user, changes={"operator": (False, True)}
            )
    user.is_staff = user.is_superuser = True


def set_active(*, user: User, active: bool, actor: User | None = None) -> bool:
    """Let a user in, or keep one out from the next request on; ``False`` if it was so already."""
    with transaction.atomic():
        changed = User.objects.filter(pk=user.pk, is_active=not active).update(is_active=active)
        if changed:
            changes = {"is_active": (not active, active)}
            audit.record(actor=actor, action="update", instance=user, changes=changes)
    user.is_active = active
    return bool(changed)


def rename_user(*, user: User, name: str) -> None:
    """What others see beside the address; may be empty."""
    user.name = " ".join(name.replace("\0", "").split())[:120]
    user.save(update_fields=["name"])


def operator_link() -> str:
    """A new one-time link, good for a day; whoever follows it becomes an operator."""
    token = secrets.token_urlsafe(32)
    OperatorLink.objects.filter(expires_at__lt=timezone.now()).delete()
    OperatorLink.objects.create(
        digest=digest(token), expires_at=timezone.now() + OPERATOR_LINK_LIFE
    )
    place = urlsplit(settings.LLMASOS.url)
    return f"{place.scheme}://{place.netloc}{reverse('accounts:operator', args=[token])}"


def claim_operator_link(*, token: str, user: User) -> bool:
    """Use the link up and make ``user`` an operator; ``False`` if it is used or expired."""
    now = timezone.now()
    fresh = OperatorLink.objects.filter(digest=digest(token), used_at=None, expires_at__gt=now)
    with transaction.atomic():
        if not fresh.update(used_at=now, used_by=user):
            return False
        make_operator(user=user, actor=user)
    return True
