"""The log: every change of members, keys, budgets and apps, for all of the team to read."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from portal import audit
from portal.accounts.models import User
from portal.teams.invitations import accept_invitation, invite, revoke_invitation
from portal.teams.lifecycle import rename_team
from portal.teams.log import PAGE, log_of
from portal.teams.members import change_role, remove_member
from portal.teams.models import Membership, Team
from portal.teams.services import create_key, revoke_key
from portal.usage.services import set_budget
from tests.portal.teams.test_invitations import BACKEND, token_of

Role = Membership.Role


def said(team: Team, viewer: User) -> list[tuple[str, str, str, str]]:
    lines = log_of(team, viewer=viewer).lines
    return [(each.who, str(each.kind), each.name, str(each.action)) for each in lines]


def test_it_says_who_did_what_newest_first(
    team: Team, owner: User, member: User, outsider: User
) -> None:
    _, url = invite(team=team, role=Role.DEVELOPER, actor=owner)
    made = accept_invitation(token=token_of(url), user=outsider)
    assert made is not None
    change_role(membership=made, role=Role.VIEWER, actor=owner)
    remove_member(membership=made, actor=owner)
    assert said(team, owner) == [
        (str(owner), "Member", outsider.email, "removed"),
        (str(owner), "Member", outsider.email, "changed"),
        (str(outsider), "Member", outsider.email, "added"),
        (str(owner), "Invitation", "link", "added"),
    ]


def test_keys_budgets_and_names_are_in_it(team: Team, owner: User) -> None:
    key, _ = create_key(team=team, user=owner, name="laptop")
    revoke_key(key=key, actor=owner)
    set_budget(team=team, monthly_tokens=500, actor=owner)
    rename_team(team=team, name="Search", actor=owner)
    made, _ = invite(team=team, role=Role.VIEWER, actor=owner)
    revoke_invitation(invitation=made, actor=owner)
    lines = log_of(team, viewer=owner).lines
    assert [str(line.kind) for line in lines] == [
        *("Invitation", "Invitation", "Team", "Team", "API key", "API key")
    ]
    [budget] = lines[3].changes
    assert (str(budget.field), budget.old, budget.new) == ("tokens a month", "", "500")


def test_each_team_has_its_own(team: Team, owner: User, outsider: User) -> None:
    create_key(team=team, user=owner, name="laptop")
    other = Team.objects.create(name="Other", kind=Team.Kind.SHARED)
    Membership.objects.create(team=other, user=outsider, role=Role.OWNER)
    assert len(said(team, owner)) == 1
    assert said(other, outsider) == []


@pytest.mark.parametrize("role", [None, *Role])
def test_every_member_reads_it_and_nobody_else(
    team: Team, owner: User, outsider: User, client: Client, role: Role | None
) -> None:
    create_key(team=team, user=owner, name="laptop")
    if role:
        Membership.objects.create(team=team, user=outsider, role=role)
    assert bool(log_of(team, viewer=outsider).lines) == bool(role)
    client.force_login(outsider, BACKEND)
    client.post("/teams/choose", {"team": str(team.pk)})
    page = client.get("/teams/log")
    assert page.status_code == 200, "an outsider sees the own team's"
    assert ("laptop" in page.content.decode()) == bool(role)
    assert "/teams/log" in client.get("/teams/members").content.decode()


def test_pages_follow_each_other_without_gap_or_repeat(team: Team, owner: User) -> None:
    fill(team, owner, 2 * PAGE + 1)
    first = log_of(team, viewer=owner)
    second = log_of(team, viewer=owner, before=first.older)
    third = log_of(team, viewer=owner, before=second.older)
    numbers = [line.number for page in (first, second, third) for line in page.lines]
    assert numbers == sorted(set(numbers), reverse=True)
    assert (len(numbers), third.older) == (2 * PAGE + 1, None)


def test_the_last_page_costs_what_the_first_does(team: Team, owner: User, client: Client) -> None:
    client.force_login(owner, BACKEND)
    client.post("/teams/choose", {"team": str(team.pk)})
    counts = []
    for lines in (1, 3 * PAGE):
        fill(team, owner, lines)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get("/teams/log").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]
    older = log_of(team, viewer=owner).older
    assert client.get(f"/teams/log?before={older}").status_code == 200


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "\u0661"])
def test_a_strange_page_is_the_first(team: Team, owner: User, client: Client, before: str) -> None:
    client.force_login(owner, BACKEND)
    client.post("/teams/choose", {"team": str(team.pk)})
    assert client.get("/teams/log", {"before": before}).status_code == 200


def fill(team: Team, actor: User, lines: int) -> None:
    for n in range(lines):
        audit.record(actor=actor, action="update", instance=team, changes={"name": (n, n + 1)})
