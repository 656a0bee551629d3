"""Digests of one-time secrets: the database holds these and can't give the secrets back."""

from __future__ import annotations

from django.utils.crypto import salted_hmac


def digest(token: str) -> str:
    """Keyed with the instance's secret: 64 hex digits."""
    return salted_hmac("portal.accounts.operator-link", token, algorithm="sha256").hexdigest()
