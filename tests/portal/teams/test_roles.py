"""Roles decide; being an operator, an outsider or nobody gives none."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from portal.accounts.models import User
from portal.teams import rules
from portal.teams.models import Membership, Team
from portal.teams.names import PERMISSION_NAMES
from portal.teams.selectors import current_team, team_for, teams_of
from portal.teams.services import anonymous_team, ensure_personal_team

Role = Membership.Role


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("permission", "least"), list(rules.LEAST.items()))
def test_each_permission_takes_at_least_its_role(
    outsider: User, team: Team, role: Role, permission: str, least: Role
) -> None:
    Membership.objects.create(team=team, user=outsider, role=role)
    assert rules.may(outsider, permission, team) == (rules.RANK[role] >= rules.RANK[least])


def test_outsiders_operators_and_visitors_have_no_role(
    team: Team, outsider: User, operator: User
) -> None:
    for stranger in (outsider, operator, AnonymousUser()):
        assert not rules.may(stranger, rules.VIEW, team)
    assert team_for(outsider, team.pk) is None
    assert team_for(outsider, "not an id") is None


@pytest.mark.django_db(transaction=True)
async def test_the_async_path_asks_the_rules_too(member: User, outsider: User, team: Team) -> None:
    assert await member.ahas_perm(rules.RUN_JOBS, team)
    assert not await member.ahas_perm(rules.MANAGE_MEMBERS, team)
    assert not await outsider.ahas_perm(rules.RUN_JOBS, team)


def test_a_page_acts_for_the_chosen_team_and_falls_back_to_the_own(
    member: User, team: Team, rf: RequestFactory
) -> None:
    request = rf.get("/")
    request.user, request.session = member, {"team": str(team.pk)}  # type: ignore[assignment]
    assert current_team(request) == team
    Membership.objects.filter(team=team, user=member).delete()
    assert current_team(request) == ensure_personal_team(user=member)
    request.user = AnonymousUser()
    assert current_team(request) == anonymous_team()


def test_the_personal_team_comes_first(member: User, team: Team) -> None:
    assert list(teams_of(member)) == [ensure_personal_team(user=member), team]


def test_the_table_in_the_docs_is_the_rules() -> None:
    text = (settings.BASE_DIR / "docs" / "permissions.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    head, *body = [[cell.strip(" `") for cell in row] for row in rows]
    assert head[1:] == [role.value for role in Role]
    told = {name: [cell == "yes" for cell in cells] for name, *cells in body}
    assert told == {
        permission: [rules.allows(role, permission) for role in Role] for permission in rules.LEAST
    }


def test_every_permission_has_a_name_for_the_page() -> None:
    assert set(PERMISSION_NAMES) == set(rules.LEAST)
