"""No stranger can take a fresh server; whoever sits at its console can."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from portal.accounts.models import OperatorLink, User
from portal.accounts.services import claim_operator_link, operator_link
from tests.conftest import PASSWORD

pytestmark = pytest.mark.usefixtures("db")

HERE = {"HTTP_HOST": "localhost:8000", "HTTP_ORIGIN": "http://localhost:8000"}
FORM = {"email": "first@example.org", "password1": PASSWORD}


@pytest.fixture(autouse=True)
def fresh_rate_limits(redis: object) -> None:
    cache.clear()


def sign_up(client: Client, email: str = FORM["email"], **extra: str) -> User:
    client.post("/accounts/signup/", FORM | {"email": email}, **extra)
    return User.objects.get(email=email)


def test_the_first_to_sign_up_at_this_machine_becomes_operator(client: Client) -> None:
    user = sign_up(client, **HERE)
    assert user.is_staff
    assert user.is_superuser


def test_the_second_does_not(client: Client, operator: User) -> None:
    assert not sign_up(client, **HERE).is_staff


@pytest.mark.parametrize(
    "trace",
    [
        {"REMOTE_ADDR": "192.0.2.7"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_VIA": "1.1 proxy"},
        {"HTTP_HOST": "testserver", "HTTP_ORIGIN": "http://testserver"},
    ],
    ids=lambda trace: next(iter(trace)),
)
def test_a_stranger_who_is_first_does_not(client: Client, trace: dict[str, str]) -> None:
    assert not sign_up(client, **(HERE | trace)).is_staff


@pytest.mark.parametrize("said", [{"trusted_proxies": 1}, {"public_url": "https://llm.example"}])
def test_nobody_is_local_behind_a_proxy(
    client: Client, settings: Settings, said: dict[str, object]
) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update=said)
    assert not sign_up(client, **HERE).is_staff


def test_the_link_makes_an_operator_of_whoever_signs_up_with_it(client: Client) -> None:
    path = urlsplit(operator_link()).path
    assert client.get(path).headers["Location"] == "/accounts/signup/"
    assert sign_up(client).is_superuser
    other = Client()
    assert other.get(path).status_code == 410
    assert not sign_up(other, "second@example.org").is_staff


def test_opening_the_link_alone_does_not_use_it_up(client: Client) -> None:
    path = urlsplit(operator_link()).path
    client.get(path)
    assert Client().get(path).status_code == 302


def test_a_signed_in_user_confirms_with_a_button(client: Client, outsider: User) -> None:
    path = urlsplit(operator_link()).path
    client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
    assert client.get(path).status_code == 200
    outsider.refresh_from_db()
    assert not outsider.is_staff
    client.post(path)
    outsider.refresh_from_db()
    assert outsider.is_staff


def test_a_link_expires_after_a_day(outsider: User) -> None:
    token = operator_link().rpartition("/")[2]
    OperatorLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not claim_operator_link(token=token, user=outsider)
    assert not outsider.is_staff


def test_the_database_does_not_hold_the_link() -> None:
    token = operator_link().rpartition("/")[2]
    row = OperatorLink.objects.values_list().get()
    assert token not in str(row)
    assert OperatorLink.objects.get().expires_at > timezone.now() + timedelta(hours=23)
