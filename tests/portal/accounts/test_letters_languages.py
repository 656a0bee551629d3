"""Letters are in the language of who reads them, whoever caused them."""

from __future__ import annotations

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.utils.translation import override

from portal.accounts.models import User
from portal.teams.invitations import invite, send_invitation
from portal.teams.models import Team
from portal.usage.alerts import send_alerts
from portal.usage.services import set_budget
from tests.conftest import PASSWORD
from tests.portal.usage.test_alerts import spend

CHINESE = {"HTTP_ACCEPT_LANGUAGE": "zh-CN,zh;q=0.9"}


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


@pytest.fixture
def reader(owner: User) -> User:
    """Somebody who reads Chinese and owns ``team``."""
    User.objects.filter(pk=owner.pk).update(language="zh-hans")
    owner.refresh_from_db()
    return owner


def in_chinese(letter: mail.EmailMessage) -> bool:
    return any("\u4e00" <= sign <= "\u9fff" for sign in letter.subject) and "如果" in letter.body


def sign_up(client: Client, email: str) -> None:
    client.post("/accounts/signup/", {"email": email, "password1": PASSWORD})


def ask_for_password(client: Client, email: str) -> mail.EmailMessage:
    assert client.post("/accounts/password/reset/", {"email": email}).status_code == 302
    return mail.outbox[-1]


def test_signing_up_says_what_somebody_reads(db: None) -> None:
    sign_up(Client(**CHINESE), "new@example.org")  # type: ignore[arg-type]
    assert User.objects.get(email="new@example.org").language == "zh-hans"
    assert in_chinese(ask_for_password(Client(), "new@example.org"))


def test_signing_in_says_it_where_nothing_is_known_yet(outsider: User, reader: User) -> None:
    for user in (outsider, reader):
        Client(HTTP_ACCEPT_LANGUAGE="en").post(
            "/accounts/login/", {"login": user.email, "password": PASSWORD}
        )
        user.refresh_from_db()
    assert (outsider.language, reader.language) == ("en", "zh-hans")


def test_choosing_a_language_changes_it(outsider: User) -> None:
    client = Client()
    client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
    for chosen, kept in (("zh-hans", "zh-hans"), ("xx", "zh-hans"), ("en", "en")):
        client.post("/i18n/setlang/", {"language": chosen, "next": "/playground/"})
        outsider.refresh_from_db()
        assert outsider.language == kept
    assert client.cookies["llmasos_language"].value == "en"
    assert Client().post("/i18n/setlang/", {"language": "zh-hans"}).status_code == 302


def test_a_forgotten_password(reader: User) -> None:
    assert in_chinese(ask_for_password(Client(HTTP_ACCEPT_LANGUAGE="en"), reader.email))
    assert "/accounts/password/reset/key/" in mail.outbox[-1].body


def test_an_unknown_address_hears_it_in_the_language_of_who_asked(db: None) -> None:
    chinese = ask_for_password(Client(**CHINESE), "nobody@example.org")  # type: ignore[arg-type]
    assert in_chinese(chinese)
    english = ask_for_password(Client(), "nobody@example.org")
    assert english.subject == "LLMasOS: No account has this address"
    assert "/accounts/signup/" in english.body


def test_an_address_that_signs_up_twice(reader: User, settings: object) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"  # type: ignore[attr-defined]
    sign_up(Client(HTTP_ACCEPT_LANGUAGE="en"), reader.email)
    assert in_chinese(mail.outbox[-1])


def test_confirming_an_address(reader: User) -> None:
    client = Client(HTTP_ACCEPT_LANGUAGE="en")
    client.post("/accounts/login/", {"login": reader.email, "password": PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    client.post("/accounts/email/", {"email": "other@example.org", "action_add": ""})
    assert in_chinese(mail.outbox[-1])
    assert "/accounts/confirm-email/" in mail.outbox[-1].body
    assert reader.email in mail.outbox[-1].body


def test_an_invitation(reader: User, team: Team, outsider: User) -> None:
    User.objects.filter(pk=outsider.pk).update(language="zh-hans")
    for email in (outsider.email, "nobody@example.org"):
        made, url = invite(team=team, role="viewer", actor=reader, email=email)
        with override("en"):
            assert send_invitation(invitation=made, url=url)
    assert [in_chinese(letter) for letter in mail.outbox] == [True, False]


def test_an_alert_that_nobody_triggered(team: Team, reader: User, member: User) -> None:
    team.memberships.filter(user=member).update(role="admin")
    set_budget(team=team, monthly_tokens=1000)
    spend(team, 900)
    send_alerts()
    subjects = {letter.to[0]: letter.subject for letter in mail.outbox}
    assert "已用去" in subjects[reader.email]
    assert "has used 80 %" in subjects[member.email]
