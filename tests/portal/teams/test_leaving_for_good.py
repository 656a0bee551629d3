"""An account and its data: taken along, deleted with a grace period, kept after all, removed."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from auditlog.models import LogEntry
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.conversations.models import Conversation, Message
from portal.jobs.models import Job
from portal.teams.farewell import GONE, MustHandOver, _remove, remove_accounts, request_deletion
from portal.teams.log import log_of
from portal.teams.members import change_role
from portal.teams.models import ApiKey, Membership, Team
from portal.teams.services import authenticate_key, create_key, ensure_personal_team
from tests.conftest import PASSWORD

Role = Membership.Role


@pytest.fixture(autouse=True)
def fresh_rates(redis: object) -> None:
    cache.clear()


def signed_in(user: User) -> Client:
    client = Client()
    client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    return client


def job_of(user: User, team: Team, model: CatalogueModel) -> Job:
    return Job.objects.create(
        team=team, user=user, source="api", model=model, model_digest="d", format="f",
        input_ids=[1], sampling={}, seed=1, state="failed",
    )  # fmt: skip


def content_of(answer: object) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in answer.streaming_content])  # type: ignore[attr-defined]

    return async_to_sync(collect)()


def export(client: Client) -> dict[str, list[dict[str, object]]]:
    answer = client.post("/accounts/data/export/")
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(content_of(answer))) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


class TestTakingACopyAlong:
    def test_it_has_everything_of_mine(
        self, team: Team, member: User, echo: CatalogueModel
    ) -> None:
        create_key(team=team, user=member, name="laptop")
        talk = Conversation.objects.create(
            team=team, user=member, mode="chat", model="echo", title="On wolves"
        )
        Message.objects.create(conversation=talk, role="user", text="What is a wolf?")
        job_of(member, team, echo)
        files = export(signed_in(member))
        assert set(files) == {
            f"{name}.json"
            for name in ("account", "memberships", "api_keys", "changes", "conversations",
                         "jobs", "app_runs")
        }  # fmt: skip
        assert files["account.json"][0]["email"] == member.email
        assert {each["team"] for each in files["memberships.json"]} >= {"Research"}
        assert files["api_keys.json"][0]["name"] == "laptop"
        assert "wolf" in str(files["conversations.json"][0]["messages"])
        assert len(files["jobs.json"]) == 1

    def test_it_has_nothing_of_others_and_no_secrets(
        self, team: Team, owner: User, member: User, echo: CatalogueModel
    ) -> None:
        key, plaintext = create_key(team=team, user=owner, name="theirs")
        job_of(owner, team, echo)
        mine, mine_plain = create_key(team=team, user=member, name="laptop")
        files = export(signed_in(member))
        assert files["jobs.json"] == []
        everything = json.dumps(files)
        for secret in (plaintext, mine_plain, key.digest, mine.digest, member.password, "theirs"):
            assert secret not in everything

    def test_it_is_not_made_without_end(self, outsider: User) -> None:
        client = signed_in(outsider)
        codes = [client.post("/accounts/data/export/").status_code for _ in range(7)]
        assert codes == [200] * 6 + [429]


class TestAskingForIt:
    def test_it_signs_out_everywhere_and_stops_keys(self, team: Team, member: User) -> None:
        here, there = signed_in(member), signed_in(member)
        _, plaintext = create_key(team=team, user=member, name="laptop")
        gone = here.post("/accounts/data/delete/", {"confirm": member.email.upper()})
        assert gone.headers["Location"] == "/accounts/login/"
        assert {c.get("/accounts/profile/").status_code for c in (here, there)} == {302}
        assert authenticate_key(plaintext) is None

    def test_it_takes_the_address_and_a_fresh_proof(self, outsider: User) -> None:
        client = signed_in(outsider)
        wrong = client.post("/accounts/data/delete/", {"confirm": "somebody@example.org"})
        assert wrong.status_code == 422
        stale = Client()
        stale.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
        asked = stale.post("/accounts/data/delete/", {"confirm": outsider.email})
        assert asked.headers["Location"].startswith("/accounts/reauthenticate/")
        outsider.refresh_from_db()
        assert outsider.delete_at is None

    def test_signing_in_keeps_the_account(self, team: Team, member: User) -> None:
        _, plaintext = create_key(team=team, user=member, name="laptop")
        signed_in(member).post("/accounts/data/delete/", {"confirm": member.email})
        client = signed_in(member)
        assert client.get("/accounts/profile/").status_code == 200
        member.refresh_from_db()
        assert member.delete_at is None
        assert authenticate_key(plaintext) is not None

    def test_a_session_that_nobody_lists_ends_too(self, outsider: User) -> None:
        client = Client()
        client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
        request_deletion(user=outsider)
        assert client.get("/accounts/profile/").status_code == 302

    def test_the_last_owner_hands_over_first(self, team: Team, owner: User, member: User) -> None:
        with pytest.raises(MustHandOver) as refused:
            request_deletion(user=owner)
        assert refused.value.teams == [team]
        page = signed_in(owner).get("/accounts/data/").content.decode()
        assert team.name in page
        change_role(
            membership=Membership.objects.get(team=team, user=member), role="owner", actor=owner
        )
        assert request_deletion(user=owner)

    def test_a_team_of_ones_own_does_not_hold_one_back(self, team: Team, owner: User) -> None:
        assert request_deletion(user=owner) > timezone.now() + timedelta(days=13)


class TestRemoving:
    def test_it_waits_and_then_takes_what_is_the_persons(
        self, team: Team, owner: User, member: User, echo: CatalogueModel
    ) -> None:
        own = ensure_personal_team(user=member)
        create_key(team=team, user=member, name="laptop")
        Conversation.objects.create(team=team, user=member, mode="chat", model="echo")
        job_of(member, own, echo)
        kept = job_of(member, team, echo)
        until = request_deletion(user=member)
        assert remove_accounts() == 0
        assert remove_accounts(now=until) == 1
        assert not User.objects.filter(pk=member.pk).exists()
        assert not Team.objects.filter(pk=own.pk).exists()
        assert not ApiKey.objects.exists()
        assert not Conversation.objects.exists()
        kept.refresh_from_db()
        assert kept.user is None, "what was made for another team stays with it"
        assert team.memberships.get().user == owner

    def test_a_team_with_nobody_else_goes_along(self, team: Team, owner: User) -> None:
        remove_accounts(now=request_deletion(user=owner))
        assert not Team.objects.filter(pk=team.pk).exists()

    def test_the_log_says_that_somebody_was_there_and_not_who(
        self, team: Team, owner: User, member: User
    ) -> None:
        create_key(team=team, user=member, name="laptop")
        remove_accounts(now=request_deletion(user=member))
        assert not LogEntry.objects.filter(actor_email=member.email).exists()
        lines = log_of(team, viewer=owner).lines
        assert "a deleted account" in [str(line.who) for line in lines]
        assert lines[0].name == GONE

    def test_whoever_came_back_in_time_stays(self, outsider: User) -> None:
        until = request_deletion(user=outsider)
        signed_in(outsider)
        assert remove_accounts(now=until) == 0

    def test_signing_in_at_the_last_moment_wins(self, outsider: User) -> None:
        """After the sweep has seen the account as due, and before it is taken away."""
        request_deletion(user=outsider)
        seen = User.objects.get(pk=outsider.pk)
        signed_in(outsider)
        assert not _remove(seen)
        assert User.objects.get(pk=outsider.pk).is_active

    def test_the_background_tasks_do_it(self) -> None:
        assert "portal.teams.chores.remove_what_is_due" in settings.CHORES
