"""Where one is signed in, what one is called, and changing the address."""

from __future__ import annotations

import re

import pytest
from allauth.usersessions.models import UserSession
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from portal.accounts.models import User
from tests.conftest import PASSWORD


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


def signed_in(user: User, **extra: str) -> Client:
    client = Client(**extra)  # type: ignore[arg-type]
    client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    assert client.get("/accounts/profile/").status_code == 200
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    return client


def test_one_session_is_ended_from_another(outsider: User) -> None:
    here, there = signed_in(outsider), signed_in(outsider, HTTP_USER_AGENT="A phone")
    page = here.get("/accounts/sessions/").content.decode()
    assert "A phone" in page
    phone = UserSession.objects.get(user_agent="A phone")
    assert here.post(f"/accounts/sessions/{phone.pk}/end/").status_code == 302
    assert there.get("/accounts/profile/").status_code == 302
    assert here.get("/accounts/profile/").status_code == 200


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox, Linux",
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1", "Safari, iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge, Windows"),
        ("<script>alert(1)</script>", "&lt;script&gt;"),
    ],
)
def test_browsers_are_called_as_people_call_them(outsider: User, agent: str, said: str) -> None:
    page = signed_in(outsider, HTTP_USER_AGENT=agent).get("/accounts/sessions/")
    assert said in page.content.decode()
    assert "<script>alert" not in page.content.decode()


def test_all_the_others_are_ended_at_once(outsider: User) -> None:
    here, *others = (signed_in(outsider) for _ in range(3))
    here.post("/accounts/sessions/")
    assert {each.get("/accounts/profile/").status_code for each in others} == {302}
    assert here.get("/accounts/profile/").status_code == 200


def test_nobody_ends_or_sees_another_persons_session(outsider: User, operator: User) -> None:
    theirs = signed_in(operator, HTTP_USER_AGENT="Their phone")
    mine = signed_in(outsider)
    number = UserSession.objects.get(user=operator).pk
    assert mine.post(f"/accounts/sessions/{number}/end/").status_code == 404
    assert "Their phone" not in mine.get("/accounts/sessions/").content.decode()
    assert theirs.get("/accounts/profile/").status_code == 200


def test_the_last_use_is_written_now_and_then_not_on_every_request(outsider: User) -> None:
    client = signed_in(outsider)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            client.get("/accounts/profile/")
    assert not [q for q in queries if re.match("(UPDATE|INSERT)", q["sql"])]


def test_a_session_without_an_address_can_be_written(outsider: User) -> None:
    """As behind a unix socket."""
    client = Client(REMOTE_ADDR="")
    client.post("/accounts/login/", {"login": outsider.email, "password": PASSWORD})
    assert UserSession.objects.get().ip == "0.0.0.0"


def test_a_new_password_ends_the_other_sessions(outsider: User) -> None:
    here, there = signed_in(outsider), signed_in(outsider)
    new = "another horse, another battery"
    form = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    assert here.post("/accounts/password/change/", form).status_code == 302
    assert here.get("/accounts/profile/").status_code == 200
    assert there.get("/accounts/profile/").status_code == 302


def test_a_new_address_counts_once_it_is_confirmed(outsider: User) -> None:
    client = signed_in(outsider)
    client.post("/accounts/email/", {"email": "new@example.org", "action_add": ""})
    outsider.refresh_from_db()
    assert outsider.email == "outsider@example.org"
    confirm(client, "new@example.org")
    outsider.refresh_from_db()
    assert outsider.email == "new@example.org"


def confirm(client: Client, email: str) -> None:
    letter = next(each for each in mail.outbox if each.to == [email])
    path = re.search(r"/accounts/confirm-email/[^\s]+", letter.body)
    assert path
    assert client.post(path[0]).status_code < 500


def test_somebody_elses_address_is_not_taken(outsider: User, operator: User) -> None:
    client = signed_in(outsider)
    client.post("/accounts/email/", {"email": operator.email, "action_add": ""})
    confirm(client, operator.email)
    outsider.refresh_from_db()
    assert outsider.email == "outsider@example.org"


def test_the_old_address_can_be_kept(outsider: User) -> None:
    client = signed_in(outsider)
    for email in ("new@example.org", "newer@example.org"):
        client.post("/accounts/email/", {"email": email, "action_add": ""})
    assert "newer@example.org" in client.get("/accounts/email/").content.decode()
    for email in ("newer@example.org", outsider.email):
        client.post("/accounts/email/", {"email": email, "action_remove": ""})
    own = outsider.emailaddress_set.values_list("email", flat=True)
    assert list(own) == ["outsider@example.org"]


def test_changing_the_address_takes_a_fresh_proof(client: Client, outsider: User) -> None:
    client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
    asked = client.post("/accounts/email/", {"email": "new@example.org", "action_add": ""})
    assert asked.headers["Location"].startswith("/accounts/reauthenticate/")
    assert not mail.outbox


def test_a_name_is_kept_tidy(outsider: User) -> None:
    client = signed_in(outsider)
    client.post("/accounts/profile/", {"name": "  Otto   Other "})
    outsider.refresh_from_db()
    assert outsider.name == "Otto Other"
    assert client.post("/accounts/profile/", {"name": "x" * 121}).status_code == 422


@pytest.mark.parametrize(
    "page",
    [
        *("profile", "email", "password/change", "2fa", "2fa/webauthn", "sessions", "data"),
        *("2fa/webauthn/add", "2fa/totp/activate", "3rdparty"),
    ],
)
def test_every_page_of_the_area_opens(outsider: User, page: str) -> None:
    client = signed_in(outsider)
    shown = client.get(f"/accounts/{page}/")
    assert shown.status_code == 200
    assert 'class="side"' in shown.content.decode()
    assert Client().get(f"/accounts/{page}/").status_code == 302
