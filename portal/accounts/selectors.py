"""Reads about people."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from portal.accounts.models import OperatorLink, User
from portal.accounts.tokens import digest


def has_operator() -> bool:
    """Whether somebody who can still sign in runs this place."""
    return User.objects.filter(is_staff=True, is_superuser=True, is_active=True).exists()


def by_email(email: str) -> User | None:
    """The user with that address, whatever its case."""
    return User.objects.filter(email__iexact=email.strip()).first()


def everybody() -> QuerySet[User]:
    """All users, newest last; for operators."""
    return User.objects.order_by("date_joined")


def opens(token: str) -> bool:
    """Whether ``token`` is an operator link that has neither been used nor expired."""
    links = OperatorLink.objects.filter(used_at=None, expires_at__gt=timezone.now())
    return links.filter(digest=digest(token)).exists()


def signed_in(request: HttpRequest) -> User:
    """Who sent a request that ``login_required`` let through."""
    assert isinstance(request.user, User), "behind login_required"
    return request.user
