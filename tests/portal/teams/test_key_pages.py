"""The pages on which keys are made, changed, rotated and revoked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.teams.keys import Terms, authenticate_key, create_key, is_key_live
from portal.teams.models import ApiKey, Team

EVERYDAY = ["models", "chat", "apps", "training"]


def page_of(user: User, team: Team) -> Client:
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    client.post("/teams/choose", {"team": str(team.pk)})
    return client


@pytest.fixture
def key(team: Team, member: User) -> ApiKey:
    terms = Terms(monthly_tokens=5, expires_at=timezone.now() + timedelta(days=3))
    return create_key(team=team, user=member, name="laptop", terms=terms)[0]


def test_a_new_key_has_the_terms_that_were_asked_and_is_filled_into_snippets(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    answer = page_of(member, team).post(
        "/teams/keys",
        {
            "name": "ci", "scopes": ["chat"], "allowed_models": ["echo"],
            "expires_on": "2099-12-31", "requests_per_minute": "60", "tokens_per_minute": "",
            "monthly_tokens": "1000000",
        },
    )  # fmt: skip
    assert answer.status_code == 201
    key = ApiKey.objects.get()
    assert Terms.of(key) == Terms(
        ["chat"], ["echo"], 60, None, 1_000_000,
        datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    )  # fmt: skip
    plaintext = answer.context["plaintext"]
    assert answer.content.decode().count(plaintext) == 4, "by itself, curl, Python, JavaScript"
    assert len(re.findall(r'model"?[:=] ?"echo"', answer.content.decode())) == 3


def test_a_key_for_an_encoder_alone_is_filled_into_calls_that_it_may_make(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    CatalogueModel.objects.create(id="encoder", kind="embedding", licence="none", name="Encoder")
    page = page_of(member, team)

    def snippets(*models: str) -> str:
        form = {"name": "ci", "scopes": ["chat"], "allowed_models": models}
        answer = page.post("/teams/keys", form)
        assert answer.status_code == 201, answer.content
        return answer.content.decode()

    alone = snippets("encoder")
    assert len(re.findall(r'model"?[:=] ?"encoder"', alone)) == 3
    assert (alone.count("v1/embeddings"), alone.count("v1/completions")) == (2, 0)
    assert "embeddings.create(" in alone
    both = snippets("encoder", "echo")
    assert len(re.findall(r'model"?[:=] ?"echo"', both)) == 3
    assert (both.count("v1/embeddings"), both.count("v1/completions")) == (0, 2)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["admin"]}),
        ("allowed_models", {"allowed_models": ["../x"]}),
        ("expires_on", {"expires_on": "2001-01-01"}),
        ("requests_per_minute", {"requests_per_minute": "-1"}),
        ("monthly_tokens", {"monthly_tokens": "9" * 30}),
        ("name", {"name": "\0"}),
    ],
)
def test_bad_terms_are_said_beside_their_field(
    team: Team, member: User, field: str, given: dict[str, Any]
) -> None:
    client = page_of(member, team)
    answer = client.post("/teams/keys", {"name": "x", "scopes": EVERYDAY} | given)
    assert answer.status_code == 422
    assert answer.context["form"].errors[field]
    assert not ApiKey.objects.exists()


def test_saving_unchanged_changes_nothing(team: Team, member: User, key: ApiKey) -> None:
    client = page_of(member, team)
    shown = client.get(f"/teams/keys/{key.pk}").context["form"]
    data = {name: shown[name].value() for name in shown.fields}
    client.post(f"/teams/keys/{key.pk}", {n: v for n, v in data.items() if v is not None})
    after = ApiKey.objects.get(pk=key.pk)
    assert Terms.of(after) == Terms.of(key)


def test_a_rotated_key_is_shown_once_with_its_old_one_still_good(
    team: Team, member: User, key: ApiKey
) -> None:
    client = page_of(member, team)
    answer = client.post(f"/teams/keys/{key.pk}/rotate", {"grace": "24"})
    assert answer.status_code == 201
    assert "no-store" in answer.headers["Cache-Control"]
    assert authenticate_key(answer.context["plaintext"]) == key
    page = client.get(f"/teams/keys/{key.pk}").content.decode()
    assert answer.context["plaintext"] not in page
    assert f"…{key.last_four}" in page, "what still works for a day"
    assert client.post(f"/teams/keys/{key.pk}/rotate", {"grace": "x"}).status_code == 422


def test_nobody_sees_a_secret_that_acts_in_anothers_name(
    team: Team, owner: User, key: ApiKey
) -> None:
    client = page_of(owner, team)
    assert client.get(f"/teams/keys/{key.pk}").context["rotate"] is None
    assert client.post(f"/teams/keys/{key.pk}/rotate", {"grace": "24"}).status_code == 404
    limited = {"name": "laptop", "scopes": ["chat"], "monthly_tokens": "1"}
    assert client.post(f"/teams/keys/{key.pk}", limited).status_code == 302
    assert ApiKey.objects.get().monthly_tokens == 1


def test_a_member_looks_at_others_keys_and_changes_none(
    team: Team, owner: User, member: User
) -> None:
    theirs, _ = create_key(team=team, user=owner, name="server")
    client = page_of(member, team)
    page = client.get(f"/teams/keys/{theirs.pk}")
    assert page.context["form"] is None
    assert not page.context["may_end"]
    for way in ("", "/rotate", "/revoke"):
        data = {"name": "x", "scopes": EVERYDAY, "grace": "0"}
        assert client.post(f"/teams/keys/{theirs.pk}{way}", data).status_code == 404
    assert is_key_live(theirs)


def test_an_outsider_finds_no_key(outsider: User, key: ApiKey) -> None:
    client = Client()
    client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
    for way in ("", "/rotate", "/revoke"):
        assert client.post(f"/teams/keys/{key.pk}{way}", {"grace": "0"}).status_code == 404
    assert client.get(f"/teams/keys/{key.pk}").status_code == 404


@pytest.mark.usefixtures("redis")  # which remembers that the session was seen a moment ago
def test_the_list_costs_the_same_with_many_keys(
    team: Team, member: User, django_assert_max_num_queries: Any
) -> None:
    for n in range(30):
        create_key(team=team, user=member, name=f"key {n}")
    client = page_of(member, team)
    with django_assert_max_num_queries(14):
        client.get("/teams/keys")


def test_a_limit_that_a_manager_set_is_said_beside_its_field(
    team: Team, owner: User, member: User, key: ApiKey
) -> None:
    asked = {"name": "laptop", "scopes": EVERYDAY, "requests_per_minute": "60"}
    assert page_of(owner, team).post(f"/teams/keys/{key.pk}", asked).status_code == 302
    more = asked | {"requests_per_minute": "61"}
    answer = page_of(member, team).post(f"/teams/keys/{key.pk}", more)
    assert answer.status_code == 422
    assert answer.context["form"].errors["requests_per_minute"]
    assert ApiKey.objects.get().requests_per_minute == 60
