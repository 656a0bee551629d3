"""An invitation opens the door once, for whom it was made, while it is fresh."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import mail, serializers
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from portal.accounts.models import User
from portal.teams.errors import NotAllowed, Refused
from portal.teams.invitations import (
    accept_invitation,
    invite,
    revoke_invitation,
    send_invitation,
)
from portal.teams.lifecycle import delete_team
from portal.teams.models import Invitation, Membership, Team
from portal.teams.selectors import invitations_to
from tests.portal.teams.test_members import both

Role = Membership.Role
BACKEND = "django.contrib.auth.backends.ModelBackend"


def token_of(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


@pytest.fixture
def token(team: Team, owner: User) -> str:
    return token_of(invite(team=team, role=Role.DEVELOPER, actor=owner)[1])


def spent(token: str, team: Team, owner: User, how: str) -> str:
    """A token that opens nothing, for each reason that there is."""
    row = Invitation.objects.filter(team=team)
    if how == "unknown":
        return token[::-1]
    if how == "used":
        row.update(accepted_at=timezone.now())
    elif how == "expired":
        row.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif how == "revoked":
        revoke_invitation(invitation=row.get(), actor=owner)
    else:
        delete_team(team=team, actor=owner)
    return token


SPENT = ("unknown", "used", "expired", "revoked", "of a deleted team")


def test_accepting_makes_a_member(token: str, team: Team, outsider: User) -> None:
    made = accept_invitation(token=token, user=outsider)
    assert made is not None
    assert (made.team, made.role) == (team, Role.DEVELOPER)
    assert Invitation.objects.get().accepted_by == outsider


@pytest.mark.parametrize("how", SPENT)
def test_a_spent_token_opens_nothing(
    token: str, team: Team, owner: User, outsider: User, how: str
) -> None:
    assert accept_invitation(token=spent(token, team, owner, how), user=outsider) is None
    assert not team.memberships.filter(user=outsider).exists()


@pytest.mark.parametrize("how", SPENT)
def test_every_spent_token_gets_the_same_answer(
    token: str, team: Team, owner: User, outsider: User, client: Client, how: str
) -> None:
    client.force_login(outsider, BACKEND)
    unknown = client.get("/teams/join/x")
    shown = client.get(f"/teams/join/{spent(token, team, owner, how)}")
    posted = client.post(f"/teams/join/{spent(token, team, owner, 'unknown')}")
    assert shown.status_code == posted.status_code == unknown.status_code == 410
    assert stripped(shown.content, token) == stripped(unknown.content, token)
    assert team.name not in shown.content.decode()


def stripped(page: bytes, token: str) -> str:
    """Without what differs from request to request."""
    from re import sub

    text = sub(r"/teams/join/[\w-]+", "", page.decode())
    return sub(r'(nonce=|value=|csrf=|Token": ?)"[^"]*"', "", text)


def test_strangers_learn_nothing_before_they_sign_in(token: str, team: Team, db: None) -> None:
    for each in (token, "unknown"):
        answer = Client().get(f"/teams/join/{each}")
        assert answer.status_code == 302
        assert answer.headers["Location"] == f"/accounts/login/?next=/teams/join/{each}"


def test_opening_the_link_alone_does_not_join(
    token: str, team: Team, outsider: User, client: Client
) -> None:
    client.force_login(outsider, BACKEND)
    assert team.name in client.get(f"/teams/join/{token}").content.decode()
    assert not team.memberships.filter(user=outsider).exists()
    assert client.post(f"/teams/join/{token}").status_code == 302
    assert team.memberships.filter(user=outsider).exists()
    assert client.session["team"] == str(team.pk)


@pytest.mark.django_db(transaction=True)
def test_of_two_who_accept_at_once_one_joins(
    token: str, team: Team, outsider: User, operator: User
) -> None:
    both(
        lambda: accept_invitation(token=token, user=outsider),
        lambda: accept_invitation(token=token, user=operator),
    )
    assert team.memberships.filter(user__in=[outsider, operator]).count() == 1


def test_a_letter_opens_only_for_the_address_it_went_to(
    team: Team, owner: User, outsider: User, operator: User
) -> None:
    _, url = invite(team=team, role=Role.VIEWER, actor=owner, email=" Outsider@Example.org ")
    with pytest.raises(Refused):
        accept_invitation(token=token_of(url), user=operator)
    assert accept_invitation(token=token_of(url), user=outsider) is not None


def test_where_addresses_are_verified_only_a_verified_one_counts(
    team: Team, owner: User, outsider: User, settings: Settings
) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update={"email_url": "smtp://mail.example"})
    _, url = invite(team=team, role=Role.VIEWER, actor=owner, email=outsider.email)
    with pytest.raises(Refused):
        accept_invitation(token=token_of(url), user=outsider)
    outsider.emailaddress_set.create(email=outsider.email, verified=True, primary=True)
    assert accept_invitation(token=token_of(url), user=outsider) is not None


def test_a_member_does_not_use_an_invitation_up(token: str, member: User, outsider: User) -> None:
    with pytest.raises(Refused):
        accept_invitation(token=token, user=member)
    assert accept_invitation(token=token, user=outsider) is not None


def test_a_second_letter_ends_the_first(team: Team, owner: User, outsider: User) -> None:
    _, first = invite(team=team, role=Role.VIEWER, actor=owner, email=outsider.email)
    invite(team=team, role=Role.ADMIN, actor=owner, email=outsider.email)
    assert accept_invitation(token=token_of(first), user=outsider) is None


def test_nobody_invites_above_their_own_role(
    team: Team, owner: User, member: User, outsider: User
) -> None:
    for stranger in (member, outsider):
        with pytest.raises(NotAllowed):
            invite(team=team, role=Role.VIEWER, actor=stranger)
    Membership.objects.filter(team=team, user=member).update(role=Role.ADMIN)
    with pytest.raises(NotAllowed):
        invite(team=team, role=Role.OWNER, actor=member)
    assert not invitations_to(team, viewer=outsider)


def test_the_database_does_not_hold_the_link(token: str) -> None:
    assert token not in serializers.serialize("json", Invitation.objects.all())


def test_the_letter_names_who_invites_and_carries_the_link(team: Team, owner: User) -> None:
    made, url = invite(team=team, role=Role.VIEWER, actor=owner, email="new@example.org")
    assert send_invitation(invitation=made, url=url)
    [letter] = mail.outbox
    assert letter.to == ["new@example.org"]
    assert url in letter.body
    assert team.name in letter.subject


def test_a_name_can_not_add_headers_to_a_letter(team: Team, owner: User) -> None:
    Team.objects.filter(pk=team.pk).update(name="x\nBcc: spam@example.org")
    team.refresh_from_db()
    made, url = invite(team=team, role=Role.VIEWER, actor=owner, email="new@example.org")
    assert send_invitation(invitation=made, url=url)
    assert mail.outbox[0].recipients() == ["new@example.org"]


def test_a_known_and_an_unknown_address_get_the_same_answer(
    team: Team, owner: User, outsider: User, client: Client
) -> None:
    client.force_login(owner, BACKEND)
    client.post("/teams/choose", {"team": str(team.pk)})
    answers = [
        client.post("/teams/members", {"email": email, "role": "viewer"})
        for email in (outsider.email, "nobody@example.org")
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert len(mail.outbox) == 2


def test_guessing_is_throttled(client: Client, db: None) -> None:
    answers = {client.get(f"/teams/join/{n}").status_code for n in range(31)}
    assert answers == {302, 429}


def test_inviting_is_throttled(team: Team, owner: User, client: Client) -> None:
    client.force_login(owner, BACKEND)
    client.post("/teams/choose", {"team": str(team.pk)})
    codes = [
        client.post("/teams/members", {"email": "bad", "role": "viewer"}).status_code
        for _ in range(61)
    ]
    assert codes == [422] * 60 + [429]
