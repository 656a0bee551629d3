"""API keys open a team's door, can't be read back, and stop when they should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core import serializers
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from portal.accounts.models import User
from portal.teams.keys import (
    KEY_PATTERN,
    KeyRefused,
    Terms,
    authenticate_key,
    create_key,
    is_key_live,
    is_use_worth_noting,
    note_use,
    revoke_key,
)
from portal.teams.models import ApiKey, Membership, Team
from portal.teams.services import ensure_personal_team


@pytest.fixture
def key(team: Team, member: User) -> tuple[ApiKey, str]:
    return create_key(team=team, user=member, name="laptop")


def test_a_key_opens_its_team(key: tuple[ApiKey, str], team: Team) -> None:
    found = authenticate_key(key[1])
    assert found == key[0]
    assert found is not None
    assert found.team == team


def test_a_revoked_key_opens_nothing(key: tuple[ApiKey, str], member: User) -> None:
    assert revoke_key(key=key[0], actor=member)
    assert authenticate_key(key[1]) is None
    assert not is_key_live(key[0])
    assert not revoke_key(key=key[0], actor=member)


def test_the_key_of_a_disabled_user_opens_nothing(key: tuple[ApiKey, str], member: User) -> None:
    User.objects.filter(pk=member.pk).update(is_active=False)
    assert authenticate_key(key[1]) is None


@pytest.mark.parametrize("role", [None, Membership.Role.VIEWER])
def test_the_key_of_a_removed_or_demoted_member_opens_nothing(
    key: tuple[ApiKey, str], member: User, team: Team, role: str | None
) -> None:
    membership = Membership.objects.filter(team=team, user=member)
    if role is None:
        membership.delete()
    else:
        membership.update(role=role)
    assert authenticate_key(key[1]) is None


def test_one_wrong_character_anywhere_is_refused(key: tuple[ApiKey, str]) -> None:
    _, plaintext = key
    for place in range(len(plaintext)):
        other = "A" if plaintext[place] != "A" else "B"
        assert authenticate_key(plaintext[:place] + other + plaintext[place + 1 :]) is None


@given(st.text())
def test_garbage_is_not_even_looked_up(text: str) -> None:
    """No database is allowed here, so a query would be an error."""
    if not KEY_PATTERN.fullmatch(text):
        assert authenticate_key(text) is None


def test_a_dump_of_the_database_does_not_hold_the_key(key: tuple[ApiKey, str]) -> None:
    _, plaintext = key
    dump = serializers.serialize("json", [*ApiKey.objects.all(), *LogEntry.objects.all()])
    assert plaintext not in dump
    assert plaintext[-43:] not in dump, "43 characters are the 256 random bits"


def test_another_pepper_refuses_every_key(key: tuple[ApiKey, str], settings: Settings) -> None:
    settings.API_KEY_PEPPER = "another"
    assert authenticate_key(key[1]) is None


def test_last_use_is_written_at_most_once_a_minute(key: tuple[ApiKey, str]) -> None:
    row, _ = key
    assert note_use(key=row)
    row.refresh_from_db()
    first = row.last_used_at
    assert first is not None
    assert not is_use_worth_noting(row)
    assert not note_use(key=row)
    row.refresh_from_db()
    assert row.last_used_at == first
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    assert note_use(key=row)
    row.refresh_from_db()
    assert row.last_used_at is not None
    assert row.last_used_at > timezone.now() - timedelta(minutes=1)


def test_opening_a_key_is_one_read_and_no_write(
    key: tuple[ApiKey, str], django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        authenticate_key(key[1])
    key[0].refresh_from_db()
    assert key[0].last_used_at is None


@pytest.mark.parametrize("name", ["", "   ", "\0", "x" * 121])
def test_a_key_needs_a_sensible_name(team: Team, member: User, name: str) -> None:
    with pytest.raises(KeyRefused):
        create_key(team=team, user=member, name=name)


def test_making_and_ending_a_key_is_audited(key: tuple[ApiKey, str], member: User) -> None:
    revoke_key(key=key[0], actor=member)
    entries = LogEntry.objects.filter(object_pk=str(key[0].pk)).order_by("pk")
    assert [entry.action for entry in entries] == [LogEntry.Action.CREATE, LogEntry.Action.UPDATE]
    assert {entry.actor for entry in entries} == {member}


class TestThePage:
    def test_a_new_key_is_shown_once(self, client: Client, outsider: User) -> None:
        client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
        answer = client.post("/teams/keys", {"name": "first", "scopes": ["models", "chat"]})
        assert answer.status_code == 201
        assert answer.headers["Cache-Control"].find("no-store") >= 0
        plaintext = answer.context["plaintext"]
        assert plaintext in answer.content.decode()
        assert authenticate_key(plaintext) is not None
        assert plaintext not in client.get("/teams/keys").content.decode()

    def test_visitors_are_asked_to_sign_in(self, client: Client, db: None) -> None:
        assert client.get("/teams/keys").headers["Location"].startswith("/accounts/login/")

    def test_an_outsider_cannot_revoke(
        self, client: Client, outsider: User, key: tuple[ApiKey, str]
    ) -> None:
        client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
        assert client.post(f"/teams/keys/{key[0].pk}/revoke").status_code == 404
        assert is_key_live(key[0])

    def test_a_member_ends_own_keys_and_an_owner_all(
        self, client: Client, owner: User, member: User, team: Team, key: tuple[ApiKey, str]
    ) -> None:
        owners, _ = create_key(team=team, user=owner, name="server")
        client.force_login(member, "django.contrib.auth.backends.ModelBackend")
        client.post("/teams/choose", {"team": str(team.pk)})
        assert client.post(f"/teams/keys/{owners.pk}/revoke").status_code == 404
        assert is_key_live(owners)
        client.force_login(owner, "django.contrib.auth.backends.ModelBackend")
        client.post("/teams/choose", {"team": str(team.pk)})
        assert client.post(f"/teams/keys/{key[0].pk}/revoke").status_code == 302
        assert not is_key_live(key[0])

    def test_nobody_chooses_a_foreign_team(
        self, client: Client, outsider: User, team: Team
    ) -> None:
        client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
        assert client.post("/teams/choose", {"team": str(team.pk)}).status_code == 404


class TestTheConsole:
    def test_create_prints_the_key_and_nothing_else(self, outsider: User) -> None:
        out = StringIO()
        call_command("keys", "create", "--user", outsider.email, "--name", "ci", stdout=out)
        found = authenticate_key(out.getvalue().removesuffix("\n"))
        assert found is not None
        assert found.team == ensure_personal_team(user=outsider)

    def test_a_new_key_has_the_terms_that_were_asked(self, outsider: User) -> None:
        call_command(
            "keys", "create", "--user", outsider.email, "--name", "ci", "--scope", "models",
            "--scope", "admin", "--model", "echo", "--last-day", "2099-12-31",
            "--requests-per-minute", "60", "--tokens-per-minute", "5000",
            "--monthly-tokens", "1000000", stdout=StringIO(),
        )  # fmt: skip
        assert Terms.of(ApiKey.objects.get()) == Terms(
            ["models", "admin"], ["echo"], 60, 5000, 1_000_000,
            datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--last-day", "tomorrow", "2027-01-31"),
            ("--last-day", "2001-01-01", "--last-day: .*future"),
            ("--scope", "everything", "everything"),
            ("--model", "../x", "--model"),
            ("--requests-per-minute", "0", "--requests-per-minute"),
            ("--monthly-tokens", "many", "many"),
        ],
    )
    def test_bad_terms_are_refused_by_their_option(
        self, outsider: User, option: str, value: str, said: str
    ) -> None:
        with pytest.raises(CommandError, match=said):
            call_command("keys", "create", "--user", outsider.email, "--name", "x", option, value)
        assert not ApiKey.objects.exists()

    def test_list_and_revoke_name_a_key_by_its_prefix(self, key: tuple[ApiKey, str]) -> None:
        out = StringIO()
        call_command("keys", "list", stdout=out)
        shown = out.getvalue().split("\t")[0]
        assert key[1] not in out.getvalue()
        call_command("keys", "revoke", shown, stdout=StringIO())
        assert not is_key_live(key[0])

    def test_an_unknown_user_is_named(self, db: None) -> None:
        with pytest.raises(CommandError, match=r"nobody@example\.org"):
            call_command("keys", "create", "--user", "nobody@example.org", "--name", "x")
