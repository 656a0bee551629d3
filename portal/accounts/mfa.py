"""Second factors: allauth's, with their secrets encrypted and every answer of a browser checked."""

from __future__ import annotations

import base64
from typing import Any

from allauth.mfa.adapter import DefaultMFAAdapter, get_adapter
from allauth.mfa.webauthn.forms import LoginWebAuthnForm
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


class LoginForm(LoginWebAuthnForm):  # type: ignore[misc]
    """allauth takes it for granted that the answer names a user; anybody can send another."""

    def clean_credential(self) -> Any:
        answer = self.cleaned_data["credential"]
        said = answer.get("response") if isinstance(answer, dict) else None
        if not isinstance(said, dict) or not isinstance(said.get("userHandle"), str):
            raise get_adapter().validation_error("incorrect_code")
        return super().clean_credential()
