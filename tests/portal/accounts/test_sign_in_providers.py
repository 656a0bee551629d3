"""Signing in through the operator's provider: off by default, and never a way to inside (S4)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from portal import oidc, security
from portal.accounts.models import User
from portal.teams.services import ensure_personal_team
from tests.conftest import PASSWORD
from tests.portal.accounts.provider import CLIENT, Provider


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


@pytest.fixture
def provider(settings: Settings, db: None) -> Iterator[Provider]:
    with Provider() as made:
        ours = settings.LLMASOS.model_copy(
            update={"oidc_url": made.url, "oidc_client_id": CLIENT, "oidc_name": "Our house"}
        )
        settings.LLMASOS = ours
        settings.SOCIALACCOUNT_PROVIDERS = oidc.provider(ours)
        yield made


def sign_in(client: Client) -> HttpResponse:
    """What a browser does: press the button, come back from the provider."""
    away = client.post("/accounts/oidc/oidc/login/")
    assert away.status_code == 302, away.content
    asked = parse_qs(urlsplit(away.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    back = {"code": "c", "state": asked["state"][0]}
    answer: HttpResponse = client.get("/accounts/oidc/oidc/login/callback/", back)
    return answer


def test_it_is_off_by_default(client: Client, db: None) -> None:
    assert client.post("/accounts/oidc/oidc/login/").status_code == 404
    assert "Sign in with a passkey" in client.get("/accounts/login/").content.decode()


def test_a_newcomer_gets_an_account_and_a_team(client: Client, provider: Provider) -> None:
    assert "Sign in with Our house" in client.get("/accounts/login/").content.decode()
    assert sign_in(client).status_code == 302
    user = User.objects.get(email="ida@example.org")
    assert user.name == "Ida Idp"
    assert user.memberships.get().team == ensure_personal_team(user=user)
    assert client.get("/accounts/profile/").status_code == 200
    assert client.get("/accounts/password/set/").status_code == 200


def test_the_same_person_comes_back_to_the_same_account(provider: Provider) -> None:
    for _ in range(2):
        sign_in(Client())
    assert User.objects.filter(email="ida@example.org").count() == 1


def test_an_address_alone_takes_over_no_account(provider: Provider, outsider: User) -> None:
    provider.person["email"] = outsider.email
    client = Client()
    sign_in(client)
    assert client.get("/accounts/profile/").status_code == 302
    assert not outsider.socialaccount_set.exists()


def test_a_member_connects_the_provider_and_signs_in_with_it(
    provider: Provider, outsider: User
) -> None:
    client = Client()
    client.post("/accounts/login/", {"login": outsider.email, "password": PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    away = client.post("/accounts/oidc/oidc/login/?process=connect")
    state = parse_qs(urlsplit(away.headers["Location"]).query)["state"][0]
    client.get("/accounts/oidc/oidc/login/callback/", {"code": "c", "state": state})
    assert outsider.socialaccount_set.get().uid == "42"
    assert "Disconnect" in client.get("/accounts/3rdparty/").content.decode()
    other = Client()
    sign_in(other)
    assert other.get("/accounts/profile/").context["user"] == outsider


def test_newcomers_can_be_kept_out(provider: Provider, settings: Settings) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update={"oidc_signups": False, "signups": False})
    client = Client()
    sign_in(client)
    assert not User.objects.filter(email="ida@example.org").exists()


def test_a_forged_state_is_refused(client: Client, provider: Provider) -> None:
    sent = {"code": "c", "state": "forged"}
    answer = client.get("/accounts/oidc/oidc/login/callback/", sent)
    assert "did not answer as it should" in answer.content.decode()
    assert not User.objects.exists()


INSIDE = ("localhost", "[::ffff:127.0.0.1]", "2130706433", "127.1", "0.0.0.0", "[::1]")
"""Names of this machine that the setting does not name."""


@pytest.mark.parametrize("host", INSIDE)
@pytest.mark.parametrize("what", ["token_endpoint", "userinfo_endpoint"])
def test_an_answer_of_the_provider_leads_nowhere_inside(
    client: Client, provider: Provider, host: str, what: str
) -> None:
    provider.description = {what: f"http://{host}:{provider.port}/canary"}
    assert sign_in(client).status_code == 401
    assert "/canary" not in provider.hits
    assert not User.objects.exists()


@pytest.mark.parametrize("path", ["/token", "/userinfo"])
def test_a_redirect_leads_nowhere_inside(client: Client, provider: Provider, path: str) -> None:
    provider.redirects = {path: f"http://localhost:{provider.port}/canary"}
    assert sign_in(client).status_code == 401
    assert path in provider.hits
    assert "/canary" not in provider.hits


def test_a_provider_that_is_away_is_said_and_not_a_traceback(
    client: Client, provider: Provider, settings: Settings
) -> None:
    ours = settings.LLMASOS.model_copy(update={"oidc_url": "http://127.0.0.1:1"})
    settings.LLMASOS, settings.SOCIALACCOUNT_PROVIDERS = ours, oidc.provider(ours)
    answer = client.post("/accounts/oidc/oidc/login/")
    assert answer.status_code == 401
    assert "did not answer as it should" in answer.content.decode()


@pytest.mark.parametrize("what", ["issuer", "token_endpoint", "authorization_endpoint"])
def test_a_provider_that_talks_nonsense_is_said_too(
    client: Client, provider: Provider, what: str
) -> None:
    provider.description = {what: 5}  # type: ignore[dict-item]
    away = client.post("/accounts/oidc/oidc/login/")
    assert away.status_code < 500
    if away.status_code == 302:
        state = parse_qs(urlsplit(away.headers["Location"]).query)["state"][0]
        sent = {"code": "c", "state": state}
        assert client.get("/accounts/oidc/oidc/login/callback/", sent).status_code < 500


def test_the_button_may_lead_to_the_provider_and_no_other_form_anywhere_else() -> None:
    policy = security.policy("http://localhost:8000", sign_in="https://id.example.org/realm")
    assert policy["DIRECTIVES"]["form-action"] == ["'self'", "https://id.example.org"]
    assert security.policy("http://localhost:8000")["DIRECTIVES"]["form-action"] == ["'self'"]


@pytest.mark.parametrize(
    ("url", "client_id", "said"),
    [
        ("id.example.org", "x", "must be like https://"),
        ("https://id.example.org", "", "OIDC_CLIENT_ID"),
    ],
)
def test_a_bad_setting_stops_the_start(tmp_path: Path, url: str, client_id: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        capture_output=True,
        text=True,
        cwd=django_settings.BASE_DIR,
        env={"DATA": str(tmp_path), "OIDC_URL": url, "OIDC_CLIENT_ID": client_id},
    )
    assert done.returncode == 2
    assert "Bad setting OIDC_URL=" in done.stderr
    assert said in done.stderr
