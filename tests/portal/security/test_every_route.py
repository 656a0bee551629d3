"""S1: no reading across teams, for every route and every kind of person.

The team's things all carry ``MARK``: whoever is not of the team must never be sent it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.conversations.services import begin, rename
from portal.gallery.builtin import sync_builtin
from portal.gallery.models import App, AppRun, RunJob
from portal.jobs.inputs import TextInput
from portal.jobs.services import create_job
from portal.jobs.viewer import Viewer
from portal.playground.stream import KINDS, Multiplexer
from portal.responses.models import Response
from portal.teams.invitations import invite
from portal.teams.models import Membership, Team
from portal.teams.services import create_key, ensure_personal_team
from tests.conftest import full_key
from tests.portal.jobs.conftest import Worker, worker  # noqa: F401  (a fixture)
from tests.portal.security.policies import MESSAGES, POLICIES, policy, routes

MARK = "mark4711"
METHODS = ("get", "post", "delete", "patch")
REFUSED = {302, 401, 403, 404, 405}
NOT_THERE = {404, 405}
not_taken: set[tuple[str, str]] = set()
"""Routes and methods that were answered with 405: for nobody do they do anything."""


def test_every_route_has_a_policy() -> None:
    assert {route for route in routes() if policy(route) is None} == set()
    assert set(POLICIES) - routes() == set(), "policies of routes that are gone"


def test_every_socket_message_has_a_policy() -> None:
    assert set(KINDS) == set(MESSAGES)


@dataclass
class Stage:
    """One team's things, by the names that routes give them, and clients of all kinds."""

    team: Team
    things: dict[str, str]
    clients: dict[str, Client]
    """By person, signed in."""
    keys: dict[str, str]
    """By person, of the own team; ``demoted``'s is of the stage's team."""

    def url(self, route: str) -> str:
        if route.startswith("^"):
            return "/api/v1/no-such-route"
        return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda m: self.things[m[1]], route)

    def send(self, method: str, route: str, person: str, *, key: bool = False) -> Any:
        client = Client() if key else self.clients[person]
        headers = {"Authorization": f"Bearer {self.keys[person]}"} if key else {}
        body = {"data": "{}", "content_type": "application/json"} if method != "get" else {}
        return getattr(client, method)(self.url(route), headers=headers, **body)


@pytest.fixture
def stage(
    transactional_db: None,
    echo: CatalogueModel,
    worker: Worker,  # noqa: F811
    team: Team,
    owner: User,
    member: User,
    outsider: User,
    operator: User,
) -> Stage:
    Team.objects.filter(pk=team.pk).update(name=MARK)
    people = {"owner": owner, "member": member, "outsider": outsider, "operator": operator}
    for name in ("other", "demoted"):
        people[name] = User.objects.create_user(f"{name}@example.org", "x")
    other = Team.objects.create(name="Another", kind=Team.Kind.SHARED)
    Membership.objects.create(team=other, user=people["other"], role=Membership.Role.OWNER)
    role = Membership.Role.DEVELOPER
    left = Membership.objects.create(team=team, user=people["demoted"], role=role)
    keys = {"member": full_key(team=team, user=member, name=MARK)}
    keys["demoted"] = full_key(team=team, user=people["demoted"], name=MARK)
    for name in ("outsider", "operator"):
        own = ensure_personal_team(user=people[name])
        keys[name] = full_key(team=own, user=people[name])
    keys["other"] = full_key(team=other, user=people["other"])
    left.delete()
    return Stage(team, _things(team, member, worker), _clients(people, team), keys)


def _clients(people: dict[str, User], team: Team) -> dict[str, Client]:
    clients = {"anonymous": Client()}
    for name, user in people.items():
        clients[name] = client = Client()
        client.force_login(user)
        session = client.session
        session["team"] = str(team.pk)  # chosen while one still belonged to it
        session.save()
    return clients


def _things(team: Team, member: User, worker: Worker) -> dict[str, str]:  # noqa: F811
    job = create_job(team=team, user=member, source="api", model="echo",
                     input=TextInput(MARK), sampling={"max_tokens": 8})  # fmt: skip
    worker.answer(MARK)
    viewer = Viewer(user=member)
    conversation = begin(viewer=viewer, team=team, mode="completion", model="echo")
    rename(conversation=conversation, title=MARK)
    item = {"type": "message", "role": "user", "content": MARK, "id": "msg_1"}
    Response.objects.create(job=job, thread=job.pk, input=[item], request={"instructions": MARK})
    sync_builtin()
    version = App.objects.exclude(current=None)[0].current
    run = AppRun.objects.create(
        version=version, team=team, user=member, kind="text", inputs={"text": MARK}
    )
    RunJob.objects.create(run=run, job=job)
    key, _ = create_key(team=team, user=member, name=MARK)
    boss = team.memberships.get(role=Membership.Role.OWNER)
    invitation, _ = invite(team=team, role=Membership.Role.VIEWER, actor=boss.user)
    return {
        "invitation_id": str(invitation.pk),
        "member_id": str(boss.pk),
        "conversation_id": str(conversation.pk),
        "job_id": job.pk.hex,
        "key_id": str(key.pk),
        "model_id": "echo",
        "response_id": f"resp_{job.pk.hex}",
        "run_id": str(run.pk),
        "slug": version.app.slug if version else "",
        "team_id": str(team.pk),
        "pk": "1",
        "provider_id": "none",
        "session_id": "1",
        "token": "x",
    }


def asked(
    stage: Stage, kind: str, people: tuple[str, ...], **how: Any
) -> Iterator[tuple[Any, str]]:
    """Each answer to each of ``people`` by each method on each route of ``kind``."""
    for route in sorted(routes()):
        if policy(route) != kind:
            continue
        if ("<" in route and "(?" in route) or route.startswith(("accounts/^", "admin/")):
            continue
        for person in people:
            for method in METHODS:
                if (route, method) in not_taken:
                    continue
                response = stage.send(method, route, person, **how)
                if response.status_code == 405:
                    not_taken.add((route, method))
                yield response, f"{person} {method} /{route}: {response.status_code}"


def leaks(response: Any) -> bool:
    return not response.streaming and MARK in response.content.decode(errors="replace")


STRANGERS = ("anonymous", "outsider", "other", "demoted", "operator")


def test_public_routes_say_nothing_of_a_team(stage: Stage) -> None:
    bad = [
        what
        for response, what in asked(stage, "public", STRANGERS)
        if leaks(response) or (response.status_code >= 500 and "readyz" not in what)
    ]
    assert bad == []


def test_pages_of_ones_own_team_need_a_sign_in_and_show_no_other(stage: Stage) -> None:
    bad = [what for response, what in asked(stage, "signed_in", STRANGERS) if leaks(response)]
    bad += [what for response, what in asked(stage, "signed_in", ("anonymous",))
            if response.status_code not in REFUSED]  # fmt: skip
    assert bad == []


def test_what_a_team_owns_is_not_there_for_anybody_else(stage: Stage) -> None:
    bad = [what for response, what in asked(stage, "owned", STRANGERS[1:])
           if response.status_code not in NOT_THERE or leaks(response)]  # fmt: skip
    bad += [what for response, what in asked(stage, "owned", ("anonymous",))
            if response.status_code not in REFUSED or leaks(response)]  # fmt: skip
    assert bad == []


def test_operators_pages_are_not_there_for_anybody_else(stage: Stage) -> None:
    others = ("outsider", "other", "member", "owner")
    bad = [what for response, what in asked(stage, "operators", others)
           if response.status_code not in NOT_THERE]  # fmt: skip
    for person in (*others, "anonymous"):
        response = stage.clients[person].get("/admin/jobs/job/")
        assert response.status_code in REFUSED, person
    assert bad == []


@pytest.mark.parametrize("kind", ["key", "key_owned"])
def test_routes_for_keys_take_nothing_else(stage: Stage, kind: str) -> None:
    bad = [what for response, what in asked(stage, kind, ("anonymous", "member", "operator"))
           if response.status_code not in (401, 405)]  # fmt: skip
    assert bad == []


def test_a_key_reads_its_own_team_alone(stage: Stage) -> None:
    people = ("outsider", "other", "operator")
    bad = [what for response, what in asked(stage, "key", people, key=True)
           if response.status_code >= 500 or leaks(response)]  # fmt: skip
    bad += [what for response, what in asked(stage, "key_owned", people, key=True)
            if response.status_code not in NOT_THERE or leaks(response)]  # fmt: skip
    for kind in ("key", "key_owned"):
        bad += [what for response, what in asked(stage, kind, ("demoted",), key=True)
                if response.status_code not in (401, 405)]  # fmt: skip
    assert bad == []


def test_the_team_itself_reads_all_of_it(stage: Stage) -> None:
    """Or the others would be refused for the wrong reason."""
    for route in routes():
        readable = "get" in _methods(route)
        if policy(route) == "owned" and readable:
            assert stage.send("get", route, "member").status_code == 200, route
        if policy(route) == "key_owned" and readable:
            assert stage.send("get", route, "member", key=True).status_code == 200, route


def _methods(route: str) -> set[str]:
    """Routes that only act are not read."""
    acting = ("/cancel", "/remove", "/restore", "/revoke", "/role", "/rotate", "/run")
    acting += ("keys/<key_id>",)
    return set() if route.endswith(acting) else {"get"}


@pytest.mark.parametrize("person", STRANGERS)
def test_a_socket_finds_no_job_of_another_team(stage: Stage, person: str) -> None:
    session = stage.clients[person].session
    user = User.objects.filter(pk=session.get("_auth_user_id")).first()
    said: list[dict[str, Any]] = []

    async def hear(text: str) -> None:
        said.append(json.loads(text))

    async def talk() -> None:
        stream = Multiplexer(Viewer(user=user, session="" if user else "v"), hear)
        for kind in MESSAGES:
            message = {"type": kind, "job": stage.things["job_id"], "seq": 1}
            await stream.receive(json.dumps(message))
        await stream.close()

    async_to_sync(talk)()
    assert MARK not in json.dumps(said)
    codes = [message.get("code") for message in said if message["type"] == "error"]
    assert codes == ["not_found"] * sum(kind == "owned" for kind in MESSAGES.values())
