"""``/api/v1``: the house's own things, for the key's own team."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.gallery.builtin import sync_builtin
from portal.jobs.models import Job
from portal.teams.models import Team
from portal.teams.services import ensure_personal_team
from tests.conftest import full_key
from tests.portal.api.scripted import Caller
from tests.portal.jobs.conftest import Worker, worker  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("echo")]
JOB = {"model": "echo", "prompt": "hello", "sampling": {"max_tokens": 8}}


@pytest.fixture
def caller(team: Team, member: User, worker: Worker) -> Caller:  # noqa: F811
    return Caller(full_key(team=team, user=member), worker)


@pytest.fixture
def stranger(outsider: User, worker: Worker) -> Caller:  # noqa: F811
    team = ensure_personal_team(user=outsider)
    return Caller(full_key(team=team, user=outsider), worker)


async def made(caller: Caller, **fields: Any) -> dict[str, Any]:
    response = await caller.send("post", "/api/v1/jobs", JOB | fields)
    assert response.status_code == 201, response.content
    found: dict[str, Any] = response.json()
    return found


async def read(caller: Caller, path: str, status: int = 200, **headers: str) -> Any:
    response = await caller.send("get", path, **headers)
    assert response.status_code == status, response.content
    return response.json()


def refused(response: Any, status: int, param: str | None) -> None:
    assert response.status_code == status, response.content
    assert response.json()["error"]["param"] == param


async def test_a_job_is_made_read_and_listed(caller: Caller) -> None:
    job = await made(caller, seed=7)
    assert (job["state"], job["seed"], job["outputs"]) == ("open", 7, [""])
    await sync_to_async(caller.worker.answer)("Hel", "lo")
    now = await read(caller, f"/api/v1/jobs/{job['id']}")
    assert (now["outputs"], now["last_seq"]) == (["Hello"], 4)
    listed = await read(caller, "/api/v1/jobs")
    assert [found["id"] for found in listed["jobs"]] == [job["id"]]
    assert listed["next"] is None


@pytest.mark.parametrize(
    "given", [{"prompt": None, "tokens": [1, 2]},
              {"prompt": None, "messages": [{"role": "user", "content": "x"}]}],
)  # fmt: skip
async def test_a_job_goes_on_from_tokens_or_messages(caller: Caller, given: Any) -> None:
    assert (await made(caller, **given))["state"] == "open"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tokens": [1]}, "tokens"),
        ({"prompt": None}, "prompt"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature"),
        ({"sampling": {"colour": 1}}, "sampling.colour"),
        ({"colour": 1}, "colour"),
        ({"prompt": ""}, "prompt"),
        ({"seed": -1}, "seed"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_by_name(
    caller: Caller, fields: Any, param: str
) -> None:
    refused(await caller.send("post", "/api/v1/jobs", JOB | fields), 400, param)
    assert not await Job.objects.aexists()


async def test_the_same_key_makes_one_job(caller: Caller) -> None:
    send = ("post", "/api/v1/jobs", JOB)
    answers = [await caller.send(*send, **{"Idempotency-Key": "once"}) for _ in range(3)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await caller.send("post", "/api/v1/jobs", JOB | {"seed": 1},
                              **{"Idempotency-Key": "once"})  # fmt: skip
    assert other.status_code == 409


async def test_pages_of_jobs_follow_each_other_without_gap_or_repeat(caller: Caller) -> None:
    ids = [(await made(caller))["id"] for _ in range(5)][::-1]
    seen: list[str] = []
    path = "/api/v1/jobs?limit=2"
    while True:
        page = await read(caller, path)
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        path = f"/api/v1/jobs?limit=2&before={page['next']}"
    assert seen == ids
    assert (await read(caller, "/api/v1/jobs?state=finished"))["jobs"] == []
    for query, param in (("limit=0", "limit"), ("before=x", "before"), ("state=odd", "state")):
        refused(await caller.send("get", f"/api/v1/jobs?{query}"), 400, param)


async def test_events_go_on_behind_the_last_one_seen(caller: Caller) -> None:
    job = await made(caller)
    path = f"/api/v1/jobs/{job['id']}/events"
    await sync_to_async(caller.worker.answer)("a", "b", "c")

    async def ids(response: Any) -> list[int]:
        raw = b"".join([chunk async for chunk in response.streaming_content]).decode()
        return [int(line[4:]) for line in raw.splitlines() if line.startswith("id: ")]

    assert await ids(await caller.send("get", path)) == [1, 2, 3, 4, 5]
    assert await ids(await caller.send("get", f"{path}?after=3")) == [4, 5]
    assert await ids(await caller.send("get", path, **{"Last-Event-ID": "2"})) == [3, 4, 5]
    refused(await caller.send("get", path, **{"Last-Event-ID": "two"}), 400, None)


async def test_a_queued_job_is_cancelled_at_once(caller: Caller) -> None:
    job = await made(caller)
    answer = await caller.send("post", f"/api/v1/jobs/{job['id']}/cancel")
    assert answer.json() == {"id": job["id"], "result": "removed"}


async def test_nothing_of_another_team_is_there(caller: Caller, stranger: Caller) -> None:
    job = (await made(caller))["id"]
    for method, path in (
        ("get", f"/api/v1/jobs/{job}"),
        ("get", f"/api/v1/jobs/{job}/events"),
        ("post", f"/api/v1/jobs/{job}/cancel"),
        ("get", "/api/v1/jobs/no-id"),
    ):
        assert (await stranger.send(method, path)).status_code == 404, path
    assert (await read(stranger, "/api/v1/jobs"))["jobs"] == []


async def test_a_key_reaches_no_other_team_of_its_maker(
    caller: Caller,
    member: User,
    worker: Worker,  # noqa: F811
) -> None:
    own = await sync_to_async(ensure_personal_team)(user=member)
    secret = await sync_to_async(full_key)(team=own, user=member)
    mine = Caller(secret, worker)
    job = (await made(caller))["id"]
    await read(mine, f"/api/v1/jobs/{job}", 404)
    theirs = (await read(caller, "/api/v1/teams"))["teams"][0]["id"]
    await read(mine, f"/api/v1/teams/{theirs}", 404)


async def test_text_becomes_tokens_and_text_again(caller: Caller) -> None:
    text = "héllo 世界"
    tokens = (await caller.send("post", "/api/v1/tokenize", {"model": "echo", "text": text})).json()
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["pieces"])
    body = {"model": "echo", "tokens": tokens["tokens"]}
    assert (await caller.send("post", "/api/v1/detokenize", body)).json() == {"text": text}
    body["tokens"] = [10**9]
    refused(await caller.send("post", "/api/v1/detokenize", body), 400, "tokens")
    body = {"model": "none", "text": "x"}
    refused(await caller.send("post", "/api/v1/tokenize", body), 404, "model")


async def test_models_are_listed_and_described(caller: Caller, echo: CatalogueModel) -> None:
    listed = (await read(caller, "/api/v1/models"))["models"]
    assert [model["id"] for model in listed] == ["echo"]
    assert await read(caller, "/api/v1/models/echo") == listed[0]
    await read(caller, "/api/v1/models/none", 404)


async def test_an_app_is_run_and_its_result_read(caller: Caller, stranger: Caller) -> None:
    await sync_to_async(sync_builtin)()
    await CatalogueModel.objects.filter(pk="gemma-3-270m").aupdate(
        state="ready", digest="x", placement="always"
    )
    apps = {app["slug"]: app for app in (await read(caller, "/api/v1/apps"))["apps"]}
    slug = next(iter(apps))
    assert await read(caller, f"/api/v1/apps/{slug}") == apps[slug]
    path = f"/api/v1/apps/{slug}/runs"
    refused(await caller.send("post", path, {"inputs": {"odd": "x"}}), 400, "inputs.odd")
    await read(caller, "/api/v1/apps/none", 404)
    await read(stranger, f"/api/v1/runs/{'0' * 32}", 404)


async def test_keys_are_made_listed_and_revoked(caller: Caller) -> None:
    made_key = (await caller.send("post", "/api/v1/keys", {"name": "second"})).json()
    second = Caller(made_key["secret"], caller.worker)
    assert len((await read(caller, "/api/v1/keys"))["keys"]) == 2
    await read(second, "/api/v1/models")
    await read(second, "/api/v1/keys", 403)
    ended = await caller.send("delete", f"/api/v1/keys/{made_key['id']}")
    assert ended.json()["revoked_at"] is not None
    await read(second, "/api/v1/models", 401)
    assert "secret" not in (await read(caller, "/api/v1/keys"))["keys"][0]
    refused(await caller.send("post", "/api/v1/keys", {"name": " "}), 400, "name")


async def test_a_key_is_made_with_its_terms(caller: Caller) -> None:
    terms = {
        "scopes": ["models", "chat"],
        "allowed_models": ["echo"],
        "requests_per_minute": 2,
        "tokens_per_minute": 4000,
        "monthly_tokens": 5000,
        "expires_at": "2999-01-01T00:00:00Z",
    }
    new = (await caller.send("post", "/api/v1/keys", {"name": "held", **terms})).json()
    keys = (await read(caller, "/api/v1/keys"))["keys"]
    listed = next(each for each in keys if each["id"] == new["id"])
    assert {name: new[name] for name in terms} == terms == {name: listed[name] for name in terms}
    held = Caller(new["secret"], caller.worker)
    await read(held, "/api/v1/apps", 403)
    for _ in range(2):
        await read(held, "/api/v1/models")
    refused(await held.send("get", "/api/v1/models"), 429, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", []),
        ("scopes", ["everything"]),
        ("allowed_models", ["no id"]),
        ("requests_per_minute", 0),
        ("tokens_per_minute", 2**40),
        ("monthly_tokens", -1),
        ("monthly_tokens", "1"),
        ("expires_at", "2000-01-01T00:00:00Z"),
        ("expires_at", "2000-01-01"),
        ("expires_at", "soon"),
        ("colour", "red"),
    ],
)
async def test_terms_that_cannot_be_are_refused_by_name(
    caller: Caller, field: str, value: object
) -> None:
    refused(await caller.send("post", "/api/v1/keys", {"name": "held", field: value}), 400, field)


async def test_usage_says_what_is_left_and_refuses_odd_times(caller: Caller) -> None:
    report = await read(caller, "/api/v1/usage")
    assert report["month"]["limit"] is None
    for query in ("since=2026-01-01T00:00:00Z", "since=yesterday"):
        refused(await caller.send("get", f"/api/v1/usage?{query}"), 400, "since")


async def test_without_a_key_there_is_nothing_but_the_description() -> None:
    client = AsyncClient()
    paths = (await client.get("/api/v1/openapi.json")).json()["paths"]
    assert {"/v1/chat/completions", "/api/v1/jobs"} <= set(paths)
    for what in ("jobs", "teams", "keys", "usage", "models", "apps"):
        assert (await client.get(f"/api/v1/{what}")).status_code == 401
    assert (await client.get("/api/v1/nothing")).status_code == 404
