"""Teams are made, renamed, deleted with a grace period, brought back, and in the end removed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import RestrictedError
from django.utils import timezone

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.conversations.models import Conversation, Message
from portal.gallery.builtin import sync_builtin
from portal.gallery.models import App, AppRun, AppVersion
from portal.jobs.models import Job
from portal.jobs.selectors import visible_to
from portal.jobs.viewer import Viewer
from portal.teams.errors import NotAllowed, Refused
from portal.teams.lifecycle import (
    create_team,
    delete_team,
    remove_teams,
    rename_team,
    restore_team,
)
from portal.teams.members import change_role
from portal.teams.models import Membership, Team
from portal.teams.rules import VIEW, may
from portal.teams.selectors import deleted_teams_of, teams_of
from portal.teams.services import authenticate_key, create_key, ensure_personal_team


def test_whoever_makes_a_team_owns_it(outsider: User) -> None:
    team = create_team(name="  Night   shift ", user=outsider)
    assert team.name == "Night shift"
    assert team.memberships.get().role == Membership.Role.OWNER
    assert team in teams_of(outsider)


@pytest.mark.parametrize("name", ["", "  ", "\0", "x" * 121])
def test_a_name_has_a_length(outsider: User, name: str) -> None:
    with pytest.raises(Refused) as refused:
        create_team(name=name, user=outsider)
    assert refused.value.field == "name"


def test_owners_and_admins_rename(team: Team, owner: User, member: User) -> None:
    assert rename_team(team=team, name="Search", actor=owner)
    with pytest.raises(NotAllowed):
        rename_team(team=team, name="Mine", actor=member)
    team.refresh_from_db()
    assert team.name == "Search"


class TestDeleting:
    def test_it_hides_the_team_and_stops_its_keys_at_once(
        self, team: Team, owner: User, member: User
    ) -> None:
        _, plaintext = create_key(team=team, user=member, name="laptop")
        delete_team(team=team, actor=owner)
        assert not may(owner, VIEW, team)
        assert team not in teams_of(member)
        assert authenticate_key(plaintext) is None

    def test_an_owner_brings_it_back_whole(self, team: Team, owner: User, member: User) -> None:
        _, plaintext = create_key(team=team, user=member, name="laptop")
        delete_team(team=team, actor=owner)
        assert list(deleted_teams_of(owner)) == [team]
        assert not deleted_teams_of(member)
        with pytest.raises(NotAllowed):
            restore_team(team=team, actor=member)
        assert restore_team(team=team, actor=owner)
        assert authenticate_key(plaintext) is not None
        assert not restore_team(team=team, actor=owner)

    def test_only_owners_may_and_nobody_deletes_a_personal_team(
        self, team: Team, owner: User, member: User
    ) -> None:
        with pytest.raises(NotAllowed):
            delete_team(team=team, actor=member)
        with pytest.raises(NotAllowed):
            delete_team(team=ensure_personal_team(user=owner), actor=owner)

    def test_nothing_changes_in_a_deleted_team(self, team: Team, owner: User, member: User) -> None:
        delete_team(team=team, actor=owner)
        theirs = Membership.objects.get(team=team, user=member)
        with pytest.raises(NotAllowed):
            change_role(membership=theirs, role="viewer", actor=owner)

    def test_its_jobs_are_hidden(
        self, team: Team, owner: User, member: User, echo: CatalogueModel
    ) -> None:
        job = _job(team, member, echo)
        assert job in visible_to(Viewer(user=member))
        delete_team(team=team, actor=owner)
        assert job not in visible_to(Viewer(user=member))


class TestRemoving:
    def test_it_waits_for_the_end_of_the_grace_period(self, team: Team, owner: User) -> None:
        until = delete_team(team=team, actor=owner)
        assert until > timezone.now() + timedelta(days=13)
        assert remove_teams() == 0
        assert remove_teams(now=until) == 1
        assert not Team.objects.filter(pk=team.pk).exists()

    def test_a_team_that_was_brought_back_is_not_removed(self, team: Team, owner: User) -> None:
        until = delete_team(team=team, actor=owner)
        restore_team(team=team, actor=owner)
        assert remove_teams(now=until) == 0

    def test_everything_of_the_team_goes_and_nothing_else(
        self, team: Team, owner: User, member: User, echo: CatalogueModel
    ) -> None:
        create_key(team=team, user=member, name="laptop")
        talk = Conversation.objects.create(team=team, user=member, mode="chat", model="echo")
        Message.objects.create(conversation=talk, role="assistant", job=_job(team, member, echo))
        kept = _job(ensure_personal_team(user=member), member, echo)
        remove_teams(now=delete_team(team=team, actor=owner))
        assert list(Job.objects.all()) == [kept]
        assert not Conversation.objects.exists()
        assert User.objects.filter(pk__in=[owner.pk, member.pk]).count() == 2

    def test_its_apps_go_with_their_versions_and_runs(self, team: Team, owner: User) -> None:
        app = App.objects.create(
            slug="theirs", team=team, author="Research", icon="R", category="other",
            name_en="Theirs", name_zh="他们的", description_en="x", description_zh="x",
        )  # fmt: skip
        app.current = AppVersion.objects.create(app=app, number=1, definition={})
        app.save()
        AppRun.objects.create(version=app.current, team=team, user=owner, kind="text", inputs={})
        assert remove_teams(now=delete_team(team=team, actor=owner)) == 1
        assert not App.objects.filter(slug="theirs").exists()
        assert not AppVersion.objects.filter(pk=app.current.pk).exists()

    def test_a_version_that_is_shown_is_not_deleted_by_itself(self, team: Team) -> None:
        sync_builtin()
        with pytest.raises(RestrictedError):
            AppVersion.objects.all().delete()


def _job(team: Team, user: User, model: CatalogueModel) -> Job:
    return Job.objects.create(
        team=team, user=user, source="api", model=model, model_digest="d", format="f",
        input_ids=[1], sampling={}, seed=1,
    )  # fmt: skip
