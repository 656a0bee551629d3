"""Second factors: allauth's, with their secrets encrypted."""

from __future__ import annotations

import base64

from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet
from django.utils.crypto import salted_hmac


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """A dump of the database gives neither authenticator secrets nor recovery codes."""

    def encrypt(self, text: str) -> str:
        return _box().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _box().decrypt(encrypted_text.encode()).decode()


def _box() -> Fernet:
    key = salted_hmac("portal.accounts.mfa", "authenticators", algorithm="sha256").digest()
    return Fernet(base64.urlsafe_b64encode(key))
