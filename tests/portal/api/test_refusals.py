"""What the portal's own limits look like to a caller: statuses, codes, and when to come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.test import Client
from redis import Redis

from portal.accounts.models import User
from portal.api import attachment
from portal.catalogue.models import CatalogueModel
from portal.catalogue.services import place
from portal.jobs import links
from portal.jobs.inputs import TextInput
from portal.jobs.models import Job
from portal.jobs.services import create_job
from portal.teams.models import Team
from portal.teams.services import create_key, revoke_key
from portal.usage.services import set_budget

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis")]


@pytest.fixture
def caller(member: User, team: Team) -> Client:
    client = Client()
    client.defaults["HTTP_AUTHORIZATION"] = (
        f"Bearer {create_key(team=team, user=member, name='test')[1]}"
    )
    return client


def complete(caller: Client, **fields: Any) -> Any:
    body = {"model": "echo", "prompt": "Hello", "max_tokens": 4, "stream": True} | fields
    return caller.post("/v1/completions", body, content_type="application/json")


def refused(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    return error


def limited(settings: Any, **fields: int) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update=fields)


def test_a_key_beyond_its_rate_waits(caller: Client, echo: CatalogueModel, settings: Any) -> None:
    limited(settings, api_requests_per_minute=2)
    first = caller.get("/v1/models")
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    caller.get("/v1/models")
    response = caller.get("/v1/models")
    assert refused(response, 429, "rate_limit_exceeded")["type"] == "rate_limit_error"
    assert 1 <= int(response.headers["Retry-After"]) <= 60


def test_a_team_over_its_budget_waits_and_nothing_is_written(
    caller: Client, echo: CatalogueModel, team: Team
) -> None:
    set_budget(team=team, monthly_tokens=12)
    response = complete(caller, max_tokens=8)
    assert refused(response, 429, "insufficient_quota")["type"] == "insufficient_quota"
    assert int(response.headers["Retry-After"]) >= 1
    assert not Job.objects.exists()


def test_several_prompts_are_all_made_or_none(
    caller: Client, echo: CatalogueModel, team: Team
) -> None:
    set_budget(team=team, monthly_tokens=25)  # room for two of three
    refused(complete(caller, prompt=["Hello"] * 3), 429, "insufficient_quota")
    assert not Job.objects.exists()
    assert links.queue().depth("echo") == 0


def test_a_full_queue_says_when_to_come_back(
    caller: Client, echo: CatalogueModel, team: Team, member: User, settings: Any
) -> None:
    create_job(
        team=team, user=member, source="api", model="echo", input=TextInput("x"),
        sampling={"max_tokens": 1},
    )  # fmt: skip
    limited(settings, queue_limit=1)
    response = complete(caller)
    refused(response, 503, "queue_full")
    assert int(response.headers["Retry-After"]) >= 1


def test_a_model_that_is_off_is_unavailable(caller: Client, echo: CatalogueModel) -> None:
    place(model=echo, placement="off")
    assert refused(complete(caller), 503, "model_unavailable")["param"] == "model"
    assert caller.get("/v1/models").json()["data"] == []
    assert caller.get("/v1/models/echo").status_code == 404


def test_a_revoked_key_opens_nothing(member: User, team: Team) -> None:
    key, plaintext = create_key(team=team, user=member, name="old")
    revoke_key(key=key, actor=member)
    response = Client().get("/v1/models", headers={"Authorization": f"Bearer {plaintext}"})
    refused(response, 401, "invalid_api_key")


def test_a_session_cookie_is_no_key(member: User) -> None:
    client = Client()
    client.force_login(member)
    refused(client.get("/v1/models"), 401, "invalid_api_key")


async def test_the_grace_ends_and_the_job_with_it(
    monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    cancelled: list[Job] = []
    monkeypatch.setattr(attachment, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(attachment, "cancel_job", lambda *, job: cancelled.append(job))
    job = Job()
    gone = lambda: True  # noqa: E731
    first = await attachment.Attachment.make([job], returning=True, gone=gone)
    second = await attachment.Attachment.make([job], returning=True, gone=gone)
    first.leave()
    await asyncio.sleep(0.2)
    assert cancelled == []
    second.leave()
    await asyncio.sleep(0.2)
    assert cancelled == [job]


async def test_a_caller_who_comes_back_within_the_grace_keeps_the_job(
    monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    cancelled: list[Job] = []
    monkeypatch.setattr(attachment, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(attachment, "cancel_job", lambda *, job: cancelled.append(job))
    job = Job()
    first = await attachment.Attachment.make([job], returning=True, gone=lambda: True)
    first.leave()
    await asyncio.sleep(0.05)
    back = await attachment.Attachment.make([job], returning=True, gone=lambda: True)
    await asyncio.sleep(0.4)
    assert cancelled == []
    await back.done()


async def test_a_server_that_ends_cancels_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Job] = []
    monkeypatch.setattr(attachment, "cancel_job", lambda *, job: cancelled.append(job))
    for drop in (False, True):
        attached = await attachment.Attachment.make([Job()], returning=False, gone=lambda: False)
        if drop:
            del attached
        else:
            attached.leave()
    await asyncio.sleep(0.1)
    assert cancelled == []
