"""Owners and admins hear of a budget that ends: at 80 % and at 100 %, once a month each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from smtplib import SMTPServerDisconnected
from uuid import uuid4

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection
from django.test import Client

from inference_workers.contract import Usage
from portal.accounts.models import User
from portal.teams.keys import Terms, create_key, revoke_key
from portal.teams.models import Membership, Team
from portal.usage.acting import Acting, act
from portal.usage.alerts import send_alerts
from portal.usage.models import UsageMonth
from portal.usage.services import reserve, set_budget, settle


def spend(team: Team, tokens: int) -> None:
    job = uuid4()
    reserve(team=team, job_id=job, tokens=tokens)
    settle(job_id=job, usage=Usage(prompt_tokens=tokens))


@pytest.fixture
def admin(team: Team, outsider: User) -> User:
    Membership.objects.create(team=team, user=outsider, role=Membership.Role.ADMIN)
    return outsider


def test_each_is_said_once(team: Team, owner: User, admin: User, member: User) -> None:
    set_budget(team=team, monthly_tokens=1000)
    spend(team, 799)
    send_alerts()
    assert mail.outbox == []
    spend(team, 1)
    for _ in range(3):
        send_alerts()
    assert sorted(m.to[0] for m in mail.outbox) == sorted([owner.email, admin.email])
    assert all(len(m.to) == 1 for m in mail.outbox)
    assert "80 %" in mail.outbox[0].subject
    assert "800" in mail.outbox[0].body
    assert "/teams/limits" in mail.outbox[0].body
    spend(team, 200)
    for _ in range(3):
        send_alerts()
    assert [("100 %" in m.subject) for m in mail.outbox] == [False, False, True, True]


def test_who_jumps_to_the_end_hears_of_the_end_alone(team: Team, owner: User) -> None:
    set_budget(team=team, monthly_tokens=1000)
    spend(team, 996)
    send_alerts()
    send_alerts()
    assert len(mail.outbox) == 1
    assert "100 %" in mail.outbox[0].subject


def test_a_keys_budget_is_told_by_the_keys_name(team: Team, owner: User) -> None:
    key, _ = create_key(team=team, user=owner, name="nightly", terms=Terms(monthly_tokens=10))
    act(Acting(key))
    try:
        spend(team, 9)
    finally:
        act(None)
    send_alerts()
    assert "nightly" in mail.outbox[0].subject
    revoke_key(key=key)
    UsageMonth.objects.update(told=0)
    send_alerts()
    assert len(mail.outbox) == 1


def test_without_a_limit_nothing_is_said(team: Team, owner: User) -> None:
    spend(team, 10**9)
    send_alerts()
    assert mail.outbox == []


def test_what_the_mail_server_refused_is_tried_again(
    team: Team, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_budget(team=team, monthly_tokens=10)
    spend(team, 10)

    def refuse(*_: object) -> int:
        raise SMTPServerDisconnected("gone")

    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", refuse)
        send_alerts()
    assert mail.outbox == []
    send_alerts()
    assert len(mail.outbox) == 1


@pytest.mark.django_db(transaction=True)
def test_several_processes_say_it_once(team: Team, owner: User) -> None:
    set_budget(team=team, monthly_tokens=10)
    spend(team, 10)

    def look(_: int) -> None:
        try:
            send_alerts()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert len(mail.outbox) == 1


@pytest.mark.parametrize(("spent", "level"), [(79, 0), (80, 80), (99, 80), (100, 100)])
def test_the_page_says_it_too(team: Team, owner: User, spent: int, level: int) -> None:
    set_budget(team=team, monthly_tokens=100)
    spend(team, spent)
    client = Client()
    client.force_login(owner, "django.contrib.auth.backends.ModelBackend")
    client.post("/teams/choose", {"team": str(team.pk)})
    page = client.get("/teams/usage")
    assert page.context["month"].alert == level
    notes = {0: None, 80: "note-warn", 100: "note-bad"}
    for at, note in notes.items():
        if note:
            assert (note in page.content.decode()) == (at == level)
