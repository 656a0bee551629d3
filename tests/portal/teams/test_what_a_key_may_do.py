"""Scopes, expiry, limits and rotation of API keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from auditlog.models import LogEntry
from django.core import serializers
from django.db.models import Model
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


def fields_of(row: Model) -> dict[str, Any]:
    """With their types: the databases' drivers give some of them otherwise than Django does."""
    values = {field.attname: row.__dict__[field.attname] for field in row._meta.concrete_fields}
    return {name: (type(value), value) for name, value in values.items()}


def test_an_opened_key_its_team_and_its_maker_are_as_their_rows_say(
    team: Team, member: User, django_assert_num_queries: Any
) -> None:
    terms = Terms(
        scopes=["chat"],
        allowed_models=["echo"],
        requests_per_minute=3,
        monthly_tokens=2**40,
        expires_at=timezone.now() + timedelta(days=1),
    )
    key, plaintext = create_key(team=team, user=member, name="x", terms=terms)
    rotate_key(key=key, grace=timedelta(hours=1), actor=member)
    with django_assert_num_queries(1):
        opened = open_key(plaintext)
        found = [fields_of(row) for row in (opened, opened.team, opened.created_by)]
    rows: list[Model] = [ApiKey.objects.get(), Team.objects.get(pk=team.pk), member]
    member.refresh_from_db()
    assert found == [fields_of(row) for row in rows]
    opened.save()  # as a row that is there already
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda team, user: Membership.objects.update(role=Membership.Role.VIEWER),
        lambda team, user: Team.objects.filter(pk=team.pk).update(delete_at=timezone.now()),
        lambda team, user: User.objects.filter(pk=user.pk).update(delete_at=timezone.now()),
        lambda team, user: User.objects.filter(pk=user.pk).update(is_active=False),
    ],
    ids=["a viewer now", "its team is deleted", "its maker is deleted", "its maker is locked out"],
)
def test_a_key_opens_nothing_once_its_maker_may_not_use_it(
    team: Team, member: User, change: Callable[[Team, User], int]
) -> None:
    key, plaintext = create_key(team=team, user=member, name="x")
    assert open_key(plaintext)
    assert is_key_live(key)
    change(team, member)
    assert rejection(plaintext) == "orphaned"
    assert not is_key_live(key)


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


class TestALimitThatAManagerSet:
    """On somebody else's key: its maker may go below it, not beyond."""

    SET = Terms(
        scopes=["models", "chat"],
        allowed_models=["echo", "gemma-3-270m"],
        requests_per_minute=60,
        tokens_per_minute=5000,
        monthly_tokens=1_000_000,
        expires_at=datetime(2099, 12, 31, tzinfo=UTC),
    )
    NARROWER: ClassVar[dict[str, Any]] = {
        "scopes": ["chat"], "allowed_models": ["echo"], "requests_per_minute": 59,
        "tokens_per_minute": 1, "monthly_tokens": 999_999,
        "expires_at": datetime(2099, 12, 30, tzinfo=UTC),
    }  # fmt: skip
    WIDER: ClassVar[list[tuple[str, Any]]] = [
        ("scopes", ["models", "chat", "apps"]),
        ("allowed_models", []),
        ("allowed_models", ["echo", "another"]),
        ("requests_per_minute", 61),
        ("requests_per_minute", None),
        ("tokens_per_minute", 5001),
        ("monthly_tokens", None),
        ("expires_at", datetime(2100, 1, 1, tzinfo=UTC)),
        ("expires_at", None),
    ]

    @pytest.fixture
    def limited(self, key: tuple[ApiKey, str], owner: User) -> ApiKey:
        assert update_key(key=key[0], name="laptop", terms=self.SET, actor=owner)
        return key[0]

    @staticmethod
    def save(key: ApiKey, actor: User, **changed: Any) -> None:
        terms = replace(Terms.of(ApiKey.objects.get(pk=key.pk)), **changed)
        assert update_key(key=key, name="laptop", terms=terms, actor=actor)

    @pytest.mark.parametrize(("field", "value"), WIDER)
    def test_a_developer_does_not_widen_it(
        self, limited: ApiKey, member: User, field: str, value: Any
    ) -> None:
        with pytest.raises(KeyRefused) as caught:
            self.save(limited, member, **{field: value})
        assert caught.value.field == field
        limited.refresh_from_db()
        assert Terms.of(limited) == self.SET

    def test_a_developer_narrows_it_and_comes_back_to_it(
        self, limited: ApiKey, member: User
    ) -> None:
        self.save(limited, member, **self.NARROWER)
        with pytest.raises(KeyRefused):
            self.save(limited, member, requests_per_minute=61)
        self.save(limited, member, **asdict(self.SET))

    def test_whoever_manages_the_team_widens_or_lifts_it(
        self, limited: ApiKey, owner: User, member: User
    ) -> None:
        self.save(limited, owner, requests_per_minute=90, monthly_tokens=None)
        self.save(limited, member, requests_per_minute=90, monthly_tokens=2_000_000)
        with pytest.raises(KeyRefused):
            self.save(limited, member, requests_per_minute=91)

    def test_what_they_left_alone_stays_the_makers(
        self, key: tuple[ApiKey, str], owner: User, member: User
    ) -> None:
        self.save(key[0], member, requests_per_minute=10)
        self.save(key[0], owner, tokens_per_minute=500)
        self.save(key[0], member, requests_per_minute=None)
        with pytest.raises(KeyRefused):
            self.save(key[0], member, tokens_per_minute=None)

    def test_a_limit_on_ones_own_key_binds_nobody(self, team: Team, owner: User) -> None:
        mine, _ = create_key(team=team, user=owner, name="mine")
        self.save(mine, owner, requests_per_minute=5)
        Membership.objects.filter(user=owner, team=team).update(role="developer")
        self.save(mine, owner, requests_per_minute=6)

    def test_a_new_secret_does_not_lift_it(self, limited: ApiKey, member: User) -> None:
        assert rotate_key(key=limited, grace=timedelta(), actor=member)
        with pytest.raises(KeyRefused):
            self.save(limited, member, monthly_tokens=None)
