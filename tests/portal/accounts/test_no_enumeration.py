"""S9: strangers can't find out who has an account, nor guess their way in."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from portal.accounts.models import User
from tests.conftest import PASSWORD

NOBODY = "nobody@example.org"


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


class Counting(MD5PasswordHasher):
    """The usual hasher of the tests, which counts its work."""

    rounds = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).rounds += 1
        return super().encode(password, salt)


def same(*pages: bytes) -> bool:
    """Equal but for the address asked for and what differs from request to request."""
    shown = set()
    for page in pages:
        text = re.sub(r"[\w.]+@example\.org", "", page.decode())
        shown.add(re.sub(r'(nonce=|value=|csrf=|Token": ?)"[^"]*"', "", text))
    return len(shown) == 1


def try_sign_in(email: str) -> tuple[int, bytes]:
    answer = Client().post("/accounts/login/", {"login": email, "password": "wrong"})
    return answer.status_code, answer.content


def test_sign_in_answers_the_same_for_known_and_unknown(outsider: User) -> None:
    known, unknown = try_sign_in(outsider.email), try_sign_in(NOBODY)
    assert known[0] == unknown[0] == 200
    assert same(known[1], unknown[1])


def test_sign_in_works_as_long_for_unknown_as_for_known(outsider: User, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.Counting"]
    work = []
    for email in (outsider.email, NOBODY):
        Counting.rounds = 0
        try_sign_in(email)
        work.append(Counting.rounds)
    assert work[0] == work[1] > 0


def test_a_disabled_account_is_not_told_from_none_by_a_wrong_password(outsider: User) -> None:
    User.objects.filter(pk=outsider.pk).update(is_active=False)
    assert same(try_sign_in(outsider.email)[1], try_sign_in(NOBODY)[1])


def test_reset_answers_the_same_for_known_and_unknown(outsider: User) -> None:
    answers = []
    for email in (outsider.email, NOBODY):
        client = Client()
        answer = client.post("/accounts/password/reset/", {"email": email})
        answers.append((answer.status_code, answer.headers["Location"]))
        answers.append((0, ""))
        done = client.get("/accounts/password/reset/done/")
        assert email not in done.content.decode()
    assert answers[0] == answers[2]
    assert len(mail.outbox) == 2, "both get a letter; one says that there is no account"


@pytest.mark.parametrize("email", ["outsider@example.org", NOBODY])
def test_guessing_passwords_is_throttled_for_known_and_unknown(outsider: User, email: str) -> None:
    codes = [try_sign_in(email) for _ in range(6)]
    assert "Too many" in codes[-1][1].decode()
    assert "Too many" not in codes[0][1].decode()
    right = Client().post("/accounts/login/", {"login": email, "password": PASSWORD})
    assert right.status_code == 200, "even the right one has to wait"


def test_asking_for_letters_is_throttled(outsider: User) -> None:
    codes = [
        Client().post("/accounts/password/reset/", {"email": outsider.email}).status_code
        for _ in range(6)
    ]
    assert codes == [302] * 5 + [429]


def test_the_answer_429_is_a_page_of_ours(outsider: User) -> None:
    for _ in range(6):
        answer = Client().post("/accounts/password/reset/", {"email": outsider.email})
    assert "Wait a few minutes" in answer.content.decode()
