"""Digests of one-time secrets: the database holds these and can't give the secrets back."""

from __future__ import annotations

from django.utils.crypto import salted_hmac


def digest(token: str, *, purpose: str = "portal.accounts.operator-link") -> str:
    """Keyed with the instance's secret and the token's purpose: 64 hex digits."""
    return salted_hmac(purpose, token, algorithm="sha256").hexdigest()
