"""The developers' page: who may make a key there, and what it shows."""

from __future__ import annotations

import json

from django.test import Client
from django.utils.translation import gettext, override

from portal.accounts.models import User
from portal.api.description import described
from portal.api.reference import groups
from portal.teams.models import ApiKey, Team

PAGE = "/developers/"


def test_every_route_is_on_the_page(db: None) -> None:
    page = Client().get(PAGE).content.decode()
    operations = [call for group in groups(described()) for call in group.operations]
    assert len(operations) > 20
    for call in operations:
        assert f'id="{call.id}"' in page


def test_what_the_code_says_about_routes_has_chinese() -> None:
    with override("zh-hans"):
        said = [group.name for group in groups(described())]
        for group in groups(described()):
            for call in group.operations:
                said += [call.summary, *call.paragraphs]
        assert [text for text in said if gettext(text) == text] == []


def test_examples_are_bodies_with_everything_required() -> None:
    for group in groups(described()):
        for call in group.operations:
            needed = {
                field.name for field in call.fields if field.required and field.place == "body"
            }
            assert needed <= set(json.loads(call.example or "{}")), call.path


def test_a_member_makes_a_key_that_is_shown_once(member: User) -> None:
    client = Client()
    client.force_login(member)
    made = client.post(PAGE)
    assert made.status_code == 201
    assert made.context["plaintext"] in made.content.decode()
    assert (
        made.headers["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    )
    assert made.context["plaintext"] not in client.get(PAGE).content.decode()


def test_nobody_else_makes_one(team: Team) -> None:
    assert Client().post(PAGE).status_code == 404
    assert not ApiKey.objects.exists()
