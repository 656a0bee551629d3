"""Scopes, expiry, limits and rotation of API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core import serializers
from django.utils import timezone

from portal.accounts.models import User
from portal.teams.keys import (
    KeyRefused,
    KeyRejected,
    Terms,
    authenticate_key,
    create_key,
    is_key_live,
    live_keys,
    open_key,
    revoke_key,
    rotate_key,
    update_key,
)
from portal.teams.models import ApiKey, Membership, Team


@pytest.fixture
def key(team: Team, member: User) -> tuple[ApiKey, str]:
    return create_key(team=team, user=member, name="laptop")


def rejection(plaintext: str) -> str:
    with pytest.raises(KeyRejected) as caught:
        open_key(plaintext)
    return caught.value.reason


class TestRotation:
    def test_both_secrets_work_during_the_grace_and_the_old_one_no_longer_after(
        self, key: tuple[ApiKey, str], member: User
    ) -> None:
        row, old = key
        new = rotate_key(key=row, grace=timedelta(hours=1), actor=member)
        assert new
        assert new != old
        assert authenticate_key(old) == authenticate_key(new) == row
        ApiKey.objects.update(previous_until=timezone.now() - timedelta(seconds=1))
        assert rejection(old) == "unknown"
        assert authenticate_key(new) == row

    def test_without_grace_the_old_secret_ends_at_once(
        self, key: tuple[ApiKey, str], member: User
    ) -> None:
        new = rotate_key(key=key[0], grace=timedelta(), actor=member)
        assert new
        assert authenticate_key(key[1]) is None
        assert authenticate_key(new)

    def test_a_second_rotation_ends_the_first_secret(
        self, key: tuple[ApiKey, str], member: User
    ) -> None:
        row, first = key
        second = rotate_key(key=row, grace=timedelta(hours=1), actor=member)
        row.refresh_from_db()
        third = rotate_key(key=row, grace=timedelta(hours=1), actor=member)
        assert second
        assert third
        assert authenticate_key(first) is None
        assert authenticate_key(second)
        assert authenticate_key(third)

    def test_of_two_at_once_one_wins(self, key: tuple[ApiKey, str], member: User) -> None:
        row, _ = key
        stale = ApiKey.objects.get(pk=row.pk)
        assert rotate_key(key=row, grace=timedelta(hours=1), actor=member)
        assert rotate_key(key=stale, grace=timedelta(hours=1), actor=member) is None

    def test_a_revoked_key_is_neither_rotated_nor_changed(
        self, key: tuple[ApiKey, str], member: User
    ) -> None:
        revoke_key(key=key[0], actor=member)
        assert rotate_key(key=key[0], grace=timedelta(), actor=member) is None
        assert not update_key(key=key[0], name="x", terms=Terms(), actor=member)

    def test_revoking_ends_both_secrets(self, key: tuple[ApiKey, str], member: User) -> None:
        new = rotate_key(key=key[0], grace=timedelta(days=1), actor=member)
        assert new
        revoke_key(key=key[0], actor=member)
        assert rejection(key[1]) == rejection(new) == "revoked"

    def test_no_secret_of_a_rotated_key_is_in_a_dump(
        self, key: tuple[ApiKey, str], member: User
    ) -> None:
        new = rotate_key(key=key[0], grace=timedelta(days=1), actor=member) or ""
        dump = serializers.serialize("json", [*ApiKey.objects.all(), *LogEntry.objects.all()])
        for plaintext in (key[1], new):
            assert plaintext[-43:] not in dump
            assert plaintext[-43:-4] not in dump

    @pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=31)])
    def test_the_grace_has_bounds(
        self, key: tuple[ApiKey, str], member: User, grace: timedelta
    ) -> None:
        with pytest.raises(KeyRefused):
            rotate_key(key=key[0], grace=grace, actor=member)


def test_a_key_says_why_it_opens_nothing_to_whoever_holds_it(team: Team, member: User) -> None:
    soon = Terms(expires_at=timezone.now() + timedelta(hours=1))
    key, plaintext = create_key(team=team, user=member, name="x", terms=soon)
    assert is_key_live(key)
    ApiKey.objects.update(expires_at=timezone.now())
    assert not is_key_live(key)
    assert rejection(plaintext) == "expired"
    assert rejection(plaintext[:-1] + ("A" if plaintext[-1] != "A" else "B")) == "unknown"
    ApiKey.objects.update(expires_at=None)
    Membership.objects.filter(user=member, team=team).delete()
    assert rejection(plaintext) == "orphaned"


def test_live_keys_are_found_in_one_query(
    team: Team, member: User, django_assert_num_queries: Any
) -> None:
    keys = [create_key(team=team, user=member, name=str(n))[0] for n in range(5)]
    revoke_key(key=keys[0], actor=member)
    with django_assert_num_queries(1):
        assert live_keys(key.pk for key in keys) == {key.pk for key in keys[1:]}


@pytest.mark.parametrize(
    ("field", "terms"),
    [
        ("scopes", Terms(scopes=[])),
        ("scopes", Terms(scopes=["chat", "everything"])),
        ("allowed_models", Terms(allowed_models=["no such/id"])),
        ("allowed_models", Terms(allowed_models=[f"m{n}" for n in range(101)])),
        ("requests_per_minute", Terms(requests_per_minute=0)),
        ("tokens_per_minute", Terms(tokens_per_minute=2**31)),
        ("monthly_tokens", Terms(monthly_tokens=-1)),
        ("expires_at", Terms(expires_at=timezone.now() - timedelta(seconds=1))),
    ],
)
def test_bad_terms_are_refused_by_name(team: Team, owner: User, field: str, terms: Terms) -> None:
    with pytest.raises(KeyRefused) as caught:
        create_key(team=team, user=owner, name="x", terms=terms)
    assert caught.value.field == field
    assert not ApiKey.objects.exists()


def test_only_those_who_manage_a_team_give_a_key_the_right_to(
    team: Team, owner: User, member: User
) -> None:
    admin = Terms(scopes=["admin"])
    with pytest.raises(KeyRefused):
        create_key(team=team, user=member, name="x", terms=admin)
    mine, _ = create_key(team=team, user=member, name="x")
    with pytest.raises(KeyRefused):
        update_key(key=mine, name="x", terms=admin, actor=member)
    assert create_key(team=team, user=owner, name="x", terms=admin)


def test_a_change_is_kept_and_audited_by_field(key: tuple[ApiKey, str], member: User) -> None:
    row, _ = key
    terms = Terms(scopes=["models"], allowed_models=["echo"], monthly_tokens=7)
    assert update_key(key=row, name="desk", terms=terms, actor=member)
    row.refresh_from_db()
    assert (row.name, Terms.of(row)) == ("desk", Terms(["models"], ["echo"], monthly_tokens=7))
    entry = LogEntry.objects.filter(object_pk=str(row.pk)).latest("pk")
    assert entry.actor == member
    assert entry.changes["monthly_tokens"] == ["", "7"]
    assert set(entry.changes) == {"name", "scopes", "allowed_models", "monthly_tokens"}
