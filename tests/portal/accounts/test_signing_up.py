"""An e-mail address and one password are enough, and everything else is there at once."""

from __future__ import annotations

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from portal.accounts.models import User
from tests.conftest import PASSWORD

pytestmark = pytest.mark.usefixtures("db", "redis")

SIGN_UP = "/accounts/signup/"
FORM = {"email": "New@Example.org", "password1": PASSWORD}


@pytest.fixture(autouse=True)
def fresh_rate_limits(redis: object) -> None:
    cache.clear()


def test_signing_up_makes_a_user_with_a_personal_team_and_signs_in(client: Client) -> None:
    answer = client.post(SIGN_UP, FORM)
    assert answer.status_code == 302
    user = User.objects.get(email="new@example.org")
    assert user.memberships.get().personal
    assert client.session["_auth_user_id"] == str(user.pk)
    assert not user.is_staff


def test_a_failing_team_leaves_no_half_account(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no team today")

    monkeypatch.setattr("portal.teams.adapter.ensure_personal_team", fail)
    with pytest.raises(RuntimeError):
        client.post(SIGN_UP, FORM)
    assert not User.objects.exists()


def test_a_weak_password_is_refused_with_a_reason(client: Client) -> None:
    answer = client.post(SIGN_UP, FORM | {"password1": "12345"})
    assert answer.status_code == 200
    assert "too short" in answer.content.decode()
    assert not User.objects.exists()


def test_signing_in_and_out(client: Client, outsider: User) -> None:
    answer = client.post("/accounts/login/", {"login": outsider.email, "password": PASSWORD})
    assert answer.status_code == 302
    assert "_auth_user_id" in client.session
    client.post("/accounts/logout/")
    assert "_auth_user_id" not in client.session


def test_a_disabled_user_cannot_sign_in_and_is_out_at_once(client: Client, outsider: User) -> None:
    client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
    assert client.get("/teams/keys").status_code == 200
    User.objects.filter(pk=outsider.pk).update(is_active=False)
    assert client.get("/teams/keys").status_code == 302
    again = Client()
    again.post("/accounts/login/", {"login": outsider.email, "password": PASSWORD})
    assert "_auth_user_id" not in again.session


def test_signing_in_leaves_no_note_for_a_later_page(client: Client, outsider: User) -> None:
    """The playground, where people land, shows none; another page would bring it up long after."""
    client.post("/accounts/login/", {"login": outsider.email, "password": PASSWORD})
    assert "_auth_user_id" in client.session
    assert not list(client.get("/models/").context["messages"])


def test_a_reset_link_arrives_and_works_once(client: Client, outsider: User) -> None:
    client.post("/accounts/password/reset/", {"email": outsider.email})
    link = next(line for line in mail.outbox[0].body.split() if line.startswith("http"))
    path = link.split("testserver", 1)[1]
    form = client.get(path, follow=True)
    target = form.request["PATH_INFO"]
    client.post(target, {"password1": "another long one 7", "password2": "another long one 7"})
    outsider.refresh_from_db()
    assert outsider.check_password("another long one 7")
    assert "password1" not in Client().get(path, follow=True).content.decode()


def test_resetting_says_the_same_for_strangers(client: Client, outsider: User) -> None:
    known = client.post("/accounts/password/reset/", {"email": outsider.email})
    unknown = client.post("/accounts/password/reset/", {"email": "nobody@example.org"})
    assert (known.status_code, known.headers["Location"]) == (
        unknown.status_code,
        unknown.headers["Location"],
    )


def test_guessing_passwords_is_throttled(client: Client, outsider: User) -> None:
    wrong = {"login": outsider.email, "password": "wrong wrong wrong"}
    for _ in range(6):
        client.post("/accounts/login/", wrong)
    client.post("/accounts/login/", wrong | {"password": PASSWORD})
    assert "_auth_user_id" not in client.session


def test_sign_up_can_be_closed(client: Client, settings: Settings) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update={"signups": False})
    client.post(SIGN_UP, FORM)
    assert not User.objects.exists()
