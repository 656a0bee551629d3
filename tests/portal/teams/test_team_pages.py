"""The team's pages: forms, refusals beside their fields, and nothing for outsiders."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from portal.accounts.models import User
from portal.teams.models import Membership, Team
from portal.teams.services import ensure_personal_team
from tests.conftest import PASSWORD

BACKEND = "django.contrib.auth.backends.ModelBackend"
Role = Membership.Role


def signed_in(user: User, team: Team | None = None) -> Client:
    client = Client()
    client.force_login(user, BACKEND)
    if team:
        assert client.post("/teams/choose", {"team": str(team.pk)}).status_code == 302
    return client


PAGES = ("/teams/members", "/teams/keys", "/teams/settings", "/teams/all", "/teams/new")


@pytest.mark.parametrize("path", [*PAGES, "/teams/log"])
def test_visitors_are_asked_to_sign_in(client: Client, db: None, path: str) -> None:
    assert client.get(path).headers["Location"] == f"/accounts/login/?next={path}"


@pytest.mark.parametrize("path", [*PAGES, "/teams/log"])
def test_every_page_opens_for_an_owner(team: Team, owner: User, path: str) -> None:
    assert signed_in(owner, team).get(path).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_in_a_personal_team_and_for_a_viewer(
    team: Team, outsider: User, path: str
) -> None:
    assert signed_in(outsider).get(path).status_code == 200
    Membership.objects.create(team=team, user=outsider, role=Role.VIEWER)
    assert signed_in(outsider, team).get(path).status_code == 200


def test_a_team_is_made_and_acted_for(outsider: User) -> None:
    client = signed_in(outsider)
    assert client.post("/teams/new", {"name": "Night shift"}).headers["Location"]
    assert "Night shift" in client.get("/teams/members").content.decode()


def test_the_choice_holds_on_every_page(team: Team, owner: User) -> None:
    client = signed_in(owner, team)
    for path in ("/playground/", "/gallery/", "/models/"):
        assert f"Team: {team.name}" in client.get(path).content.decode(), path


def test_the_playground_shows_the_conversations_of_the_team_one_acts_for(
    team: Team, owner: User
) -> None:
    from portal.conversations.models import Conversation

    own = ensure_personal_team(user=owner)
    for where, title in ((team, "Shared"), (own, "Private")):
        Conversation.objects.create(team=where, user=owner, mode="chat", model="echo", title=title)
    listed = signed_in(owner, team).get("/playground/conversations").json()["conversations"]
    assert [each["title"] for each in listed] == ["Shared"]
    listed = signed_in(owner).get("/playground/conversations").json()["conversations"]
    assert [each["title"] for each in listed] == ["Private"]


@pytest.mark.parametrize(
    ("path", "form", "said"),
    [
        ("/teams/new", {"name": " "}, "required"),
        ("/teams/members", {"email": "nonsense", "role": "viewer"}, "not an e-mail address"),
        ("/teams/members", {"email": "", "role": "emperor"}, "emperor"),
        ("/teams/settings/name", {"name": ""}, "required"),
        ("/teams/settings/owner", {"email": "nobody@example.org"}, "No other member"),
        ("/teams/settings/delete", {"confirm": "something"}, "not the team"),
    ],
)
def test_a_refusal_stands_beside_its_field(
    team: Team, owner: User, path: str, form: dict[str, str], said: str
) -> None:
    answer = signed_in(owner, team).post(path, form)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert said in page[page.index("field-error") :][:400]


def test_deleting_takes_the_name_and_can_be_undone(team: Team, owner: User) -> None:
    client = signed_in(owner, team)
    assert client.post("/teams/settings/delete", {"confirm": team.name}).status_code == 302
    assert team.name in client.get("/teams/all").content.decode()
    assert client.post(f"/teams/deleted/{team.pk}/restore").status_code == 302
    team.refresh_from_db()
    assert team.delete_at is None


def test_the_last_owner_is_told_why_not(team: Team, owner: User) -> None:
    client, mine = signed_in(owner, team), team.memberships.get(user=owner)
    answer = client.post(f"/teams/members/{mine.pk}/remove", follow=True)
    assert "A team needs an owner" in answer.content.decode()


def writes(team: Team, owner: User) -> list[tuple[str, dict[str, str]]]:
    mine = team.memberships.get(user=owner)
    return [
        ("/teams/members", {"email": "", "role": "viewer"}),
        (f"/teams/members/{mine.pk}/role", {"role": "viewer"}),
        (f"/teams/members/{mine.pk}/remove", {}),
        ("/teams/settings/name", {"name": "Mine"}),
        ("/teams/settings/owner", {"email": owner.email}),
        ("/teams/settings/delete", {"confirm": team.name}),
        (f"/teams/deleted/{team.pk}/restore", {}),
    ]


def test_a_viewer_writes_nothing(team: Team, owner: User, outsider: User) -> None:
    Membership.objects.create(team=team, user=outsider, role=Role.VIEWER)
    client = signed_in(outsider, team)
    for path, form in writes(team, owner):
        assert client.post(path, form).status_code == 404, path
    team.refresh_from_db()
    assert (team.name, team.delete_at) == ("Research", None)


def test_an_outsider_reaches_no_member_and_no_invitation(
    team: Team, owner: User, member: User, outsider: User
) -> None:
    """Whose current team is another: ids of this one are not found there."""
    from portal.teams.invitations import invite

    made, _ = invite(team=team, role=Role.VIEWER, actor=owner)
    client = signed_in(outsider)
    theirs = team.memberships.get(user=member).pk
    assert client.post(f"/teams/members/{theirs}/role", {"role": "viewer"}).status_code == 404
    assert client.post(f"/teams/members/{theirs}/remove").status_code == 404
    assert client.post(f"/teams/invitations/{made.pk}/revoke").status_code == 404
    assert client.post(f"/teams/deleted/{team.pk}/restore").status_code == 404
    assert team.memberships.count() == 2


def test_a_long_list_of_members_costs_no_more_queries(team: Team, owner: User) -> None:
    client, counts = signed_in(owner, team), []
    for start in (0, 60):
        for n in range(start, start + 30):
            user = User.objects.create_user(f"m{n}@example.org", PASSWORD)
            Membership.objects.create(team=team, user=user, role=Role.VIEWER)
        with CaptureQueriesContext(connection) as queries:
            client.get("/teams/members")
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert "2 / 2" in client.get("/teams/members?page=2").content.decode()
