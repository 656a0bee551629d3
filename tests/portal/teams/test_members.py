"""Roles change, members leave and are removed; a team always keeps an owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from portal.accounts.models import User
from portal.teams import rules
from portal.teams.errors import LastOwner, NotAllowed
from portal.teams.invitations import invite
from portal.teams.members import change_role, owners, remove_member, transfer_ownership
from portal.teams.models import Invitation, Membership, Team
from portal.teams.selectors import members_of
from portal.teams.services import authenticate_key, create_key, ensure_personal_team

Role = Membership.Role


def of(user: User, team: Team) -> Membership:
    return Membership.objects.get(user=user, team=team)


def join(user: User, team: Team, role: str) -> Membership:
    return Membership.objects.create(user=user, team=team, role=role)


def test_an_owner_changes_a_role(team: Team, owner: User, member: User) -> None:
    assert change_role(membership=of(member, team), role=Role.ADMIN, actor=owner)
    assert of(member, team).role == Role.ADMIN
    assert not change_role(membership=of(member, team), role=Role.ADMIN, actor=owner)


@pytest.mark.parametrize("actor", list(Role))
@pytest.mark.parametrize("target", list(Role))
@pytest.mark.parametrize("new", list(Role))
def test_nobody_reaches_above_their_own_role(actor: Role, target: Role, new: Role) -> None:
    allowed = rules.may_touch(actor, target) and rules.may_give(actor, new)
    manages = actor in (Role.OWNER, Role.ADMIN)
    highest = max(rules.RANK[target], rules.RANK[new])
    assert allowed == (manages and highest <= rules.RANK[actor])


def test_an_admin_can_neither_make_nor_unmake_owners(team: Team, owner: User, member: User) -> None:
    Membership.objects.filter(user=member).exclude(personal=True).update(role=Role.ADMIN)
    with pytest.raises(NotAllowed):
        change_role(membership=of(member, team), role=Role.OWNER, actor=member)
    with pytest.raises(NotAllowed):
        remove_member(membership=of(owner, team), actor=member)


def test_a_role_is_read_when_it_is_used(team: Team, owner: User, member: User) -> None:
    """An admin who was demoted while the page was open changes nothing any more."""
    mine = of(member, team)
    mine.role = Role.ADMIN
    with pytest.raises(NotAllowed):
        change_role(membership=mine, role=Role.ADMIN, actor=member)


def test_the_last_owner_can_neither_leave_nor_be_demoted(team: Team, owner: User) -> None:
    with pytest.raises(LastOwner):
        remove_member(membership=of(owner, team), actor=owner)
    with pytest.raises(LastOwner):
        change_role(membership=of(owner, team), role=Role.VIEWER, actor=owner)
    assert of(owner, team).role == Role.OWNER


@pytest.mark.parametrize("state", ["is_active", "delete_at"])
def test_an_owner_who_cannot_act_does_not_count(
    team: Team, owner: User, outsider: User, state: str
) -> None:
    join(outsider, team, Role.OWNER)
    gone = {"is_active": False} if state == "is_active" else {"delete_at": "2100-01-01T00:00Z"}
    User.objects.filter(pk=outsider.pk).update(**gone)
    with pytest.raises(LastOwner):
        remove_member(membership=of(owner, team), actor=owner)


def both(*acts: Callable[[], object]) -> list[Exception]:
    """Run them at once; what they raised."""
    raised: list[Exception] = []
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], None]) -> None:
        start.wait()
        try:
            act()
        except Exception as error:
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def goes(user: User, team: Team, way: str) -> Callable[[], object]:
    mine = of(user, team)
    if way == "leave":
        return lambda: remove_member(membership=mine, actor=user)
    return lambda: change_role(membership=mine, role=Role.VIEWER, actor=user)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["leave", "demote"])
def test_of_two_owners_who_go_at_once_one_stays(
    team: Team, owner: User, outsider: User, way: str
) -> None:
    join(outsider, team, Role.OWNER)
    raised = both(goes(owner, team, way), goes(outsider, team, way))
    assert [type(error) for error in raised] == [LastOwner]
    assert owners(team).count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["leave", "demote"])
def test_the_second_owner_waits_for_the_first_to_be_gone(
    team: Team, owner: User, outsider: User, way: str
) -> None:
    """Whose going is not committed yet: to look past it would be to see two owners."""
    join(outsider, team, Role.OWNER)
    first, second = goes(owner, team, way), goes(outsider, team, way)
    gone = threading.Event()

    def go_slowly() -> None:
        with transaction.atomic():
            first()
            gone.set()
            time.sleep(0.3)

    def follow() -> None:
        gone.wait()
        second()

    assert [type(error) for error in both(go_slowly, follow)] == [LastOwner]
    assert owners(team).get().user == outsider


def test_whoever_leaves_takes_no_key_along(team: Team, member: User, owner: User) -> None:
    _, plaintext = create_key(team=team, user=member, name="laptop")
    remove_member(membership=of(member, team), actor=member)
    assert authenticate_key(plaintext) is None
    join(member, team, Role.DEVELOPER)
    assert authenticate_key(plaintext) is None, "coming back does not bring old keys back"


def test_invitations_end_with_their_makers_power(team: Team, owner: User, member: User) -> None:
    change_role(membership=of(member, team), role=Role.ADMIN, actor=owner)
    invite(team=team, role=Role.VIEWER, actor=member)
    change_role(membership=of(member, team), role=Role.DEVELOPER, actor=owner)
    assert Invitation.objects.get().revoked_at is not None


def test_nobody_leaves_or_joins_a_personal_team(outsider: User, owner: User) -> None:
    own = ensure_personal_team(user=outsider)
    with pytest.raises(NotAllowed):
        remove_member(membership=of(outsider, own), actor=outsider)
    with pytest.raises(NotAllowed):
        invite(team=own, role=Role.VIEWER, actor=outsider)


def test_handing_over_swaps_the_roles(team: Team, owner: User, member: User) -> None:
    transfer_ownership(team=team, to=of(member, team), actor=owner)
    assert (of(member, team).role, of(owner, team).role) == (Role.OWNER, Role.ADMIN)
    with pytest.raises(NotAllowed):
        transfer_ownership(team=team, to=of(member, team), actor=owner)


def test_nobody_hands_over_to_a_stranger_or_to_themselves(
    team: Team, owner: User, outsider: User
) -> None:
    with pytest.raises(NotAllowed):
        transfer_ownership(team=team, to=outsider.memberships.get(), actor=owner)
    with pytest.raises(NotAllowed):
        transfer_ownership(team=team, to=of(owner, team), actor=owner)


def test_members_see_each_other_and_strangers_see_nobody(
    team: Team, owner: User, member: User, outsider: User, operator: User
) -> None:
    assert [each.user for each in members_of(team, viewer=member)] == [owner, member]
    assert not members_of(team, viewer=outsider)
    assert not members_of(team, viewer=operator)
