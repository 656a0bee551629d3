"""Second factors: asked for, kept encrypted, and never lost to a stolen password."""

from __future__ import annotations

import json
import time

import pytest
from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    hotp_value,
)
from django.core import serializers
from django.core.cache import cache
from django.test import Client

from portal.accounts.models import User
from tests.conftest import PASSWORD

SECRET = "JBSWY3DPEHPK3PXP"


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


def code_now() -> str:
    return format_hotp_value(hotp_value(SECRET, int(time.time()) // 30))


def sign_in(client: Client, user: User) -> str:
    answer = client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    return str(answer.headers.get("Location", ""))


def test_a_code_is_asked_for_after_the_password(client: Client, outsider: User) -> None:
    TOTP.activate(outsider, SECRET)
    assert sign_in(client, outsider) == "/accounts/2fa/authenticate/"
    assert client.get("/accounts/profile/").status_code == 302
    wrong = client.post("/accounts/2fa/authenticate/", {"code": "000000"})
    assert "Incorrect code" in wrong.content.decode()
    client.post("/accounts/2fa/authenticate/", {"code": code_now()})
    assert client.get("/accounts/profile/").status_code == 200


def test_a_recovery_code_works_once(client: Client, outsider: User) -> None:
    TOTP.activate(outsider, SECRET)
    code = RecoveryCodes.activate(outsider).get_unused_codes()[0]
    sign_in(client, outsider)
    assert client.post("/accounts/2fa/authenticate/", {"code": code}).status_code == 302
    again = Client()
    sign_in(again, outsider)
    assert again.post("/accounts/2fa/authenticate/", {"code": code}).status_code == 200


def test_setting_up_an_app_takes_the_password_again_and_gives_recovery_codes(
    client: Client, outsider: User
) -> None:
    client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
    asked = client.get("/accounts/2fa/totp/activate/")
    assert asked.headers["Location"].startswith("/accounts/reauthenticate/")
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    page = client.get("/accounts/2fa/totp/activate/")
    secret = page.context["form"].secret
    value = hotp_value(secret, int(time.time()) // 30)
    done = client.post("/accounts/2fa/totp/activate/", {"code": format_hotp_value(value)})
    assert done.headers["Location"] == "/accounts/2fa/recovery-codes/"
    codes = RecoveryCodes(Authenticator.objects.get(user=outsider, type="recovery_codes"))
    shown = client.get("/accounts/2fa/recovery-codes/").content.decode()
    assert all(code in shown for code in codes.get_unused_codes())
    assert client.get("/accounts/2fa/").status_code == 200


def test_guessing_codes_is_throttled(client: Client, outsider: User) -> None:
    TOTP.activate(outsider, SECRET)
    sign_in(client, outsider)
    for n in range(6):
        client.post("/accounts/2fa/authenticate/", {"code": f"{n:06}"})
    right = client.post("/accounts/2fa/authenticate/", {"code": code_now()})
    assert right.status_code == 200, "even the right one has to wait"


def test_the_database_holds_no_secret_in_the_clear(outsider: User) -> None:
    TOTP.activate(outsider, SECRET)
    dump_of = Authenticator.objects.filter(user=outsider)
    RecoveryCodes.activate(outsider)
    dump = serializers.serialize("json", dump_of)
    assert SECRET not in dump
    for factor in dump_of:
        sealed = next(factor.data[name] for name in ("secret", "seed") if name in factor.data)
        assert get_adapter().decrypt(sealed) != sealed


@pytest.mark.parametrize(
    "answer",
    [
        *("", "null", "[]", "1", '"x"', "{}", '{"response": 1}', '{"response": {}}'),
        json.dumps({"response": {"userHandle": 1}}),
        json.dumps({"response": {"userHandle": "!!"}}),
        json.dumps({"id": "x", "rawId": "eA", "type": "public-key", "response": {
            "userHandle": "MQ", "clientDataJSON": "e30", "authenticatorData": "eA",
            "signature": "eA"}}),
    ],
)  # fmt: skip
def test_a_strange_passkey_is_refused(client: Client, outsider: User, answer: str) -> None:
    client.get("/accounts/2fa/webauthn/login/", headers={"X-Requested-With": "XMLHttpRequest"})
    refused = client.post("/accounts/2fa/webauthn/login/", {"credential": answer})
    assert refused.status_code == 302
    assert refused.headers["Location"] == "/accounts/login/"
    assert client.get("/accounts/profile/").status_code == 302


@pytest.mark.parametrize("answer", ["[]", "1", '{"response": 1}', '{"response": {"x": 1}}'])
def test_a_strange_security_key_is_refused(client: Client, outsider: User, answer: str) -> None:
    TOTP.activate(outsider, SECRET)
    sign_in(client, outsider)
    assert client.post("/accounts/2fa/authenticate/", {"credential": answer}).status_code == 200
