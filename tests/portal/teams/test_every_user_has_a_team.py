"""Everything belongs to a team, so everybody has one."""

from __future__ import annotations

from portal.accounts.models import User
from portal.teams.models import Membership, Team
from portal.teams.services import anonymous_team, ensure_personal_team


def test_asking_twice_gives_the_same_personal_team(outsider: User) -> None:
    first = ensure_personal_team(outsider)
    assert ensure_personal_team(outsider) == first
    assert first.kind == Team.Kind.PERSONAL
    assert outsider.memberships.get().role == Membership.Role.OWNER


def test_visitors_share_one_team(db: None) -> None:
    assert anonymous_team() == anonymous_team()
    assert Team.objects.filter(kind=Team.Kind.ANONYMOUS).count() == 1


def test_a_member_has_a_personal_team_and_the_shared_one(member: User, team: Team) -> None:
    assert {m.team for m in member.memberships.all()} == {team, ensure_personal_team(member)}
