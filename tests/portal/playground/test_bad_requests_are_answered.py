"""The endpoints: whatever comes, a status and a clear error in JSON; nothing is written."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.http import Http404
from django.test import Client, RequestFactory

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.conversations.models import Conversation
from portal.jobs.models import Job
from portal.jobs.services import create_job
from portal.playground.views import conversation_page
from portal.teams.services import ensure_personal_team
from portal.usage.services import set_budget

pytestmark = pytest.mark.usefixtures("redis", "echo")


@pytest.fixture
def page(db: None, outsider: User) -> Client:
    client = Client(raise_request_exception=True)
    client.force_login(outsider)
    return client


@pytest.fixture
def conversation(outsider: User) -> Conversation:
    return Conversation.objects.create(
        team=ensure_personal_team(user=outsider), user=outsider, mode="completion", model="echo"
    )


def body(about: Conversation, /, **changes: Any) -> dict[str, Any]:
    given = {"conversation": str(about.pk), "text": "hi", "model": "echo",
             "mode": "completion", "settings": {"max_tokens": 4}}  # fmt: skip
    return {name: value for name, value in (given | changes).items() if value is not ...}


def post(page: Client, path: str, what: Any) -> Any:
    raw = what if isinstance(what, (str, bytes)) else json.dumps(what)
    return page.post(f"/playground/{path}", raw, content_type="application/json")


CASES: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"text": ""}, 400, "empty_prompt", "text"),
    ({"text": " \n "}, 400, "empty_prompt", "text"),
    ({"text": "a\0b"}, 400, "bad_text", "text"),
    ({"text": "a\ud800"}, 400, "bad_text", "text"),
    ({"text": "x" * 200_000}, 400, "context_length_exceeded", "prompt"),
    ({"text": 7}, 400, "invalid_request", "text"),
    ({"text": ...}, 400, "invalid_request", "text"),
    ({"model": "nope"}, 404, "model_not_found", "model"),
    ({"model": "x" * 1000}, 400, "invalid_request", "model"),
    ({"mode": "sing"}, 400, "invalid_request", "mode"),
    ({"conversation": "x"}, 400, "invalid_request", "conversation"),
    ({"conversation": str(uuid.uuid4())}, 404, "not_found", None),
    ({"regenerate": str(uuid.uuid4()), "text": ...}, 400, "invalid_request", "regenerate"),
    ({"edit": str(uuid.uuid4())}, 400, "invalid_request", "edit"),
    ({"settings": {"temperature": -1}}, 400, "invalid_request", "temperature"),
    ({"settings": {"top_p": 0}}, 400, "invalid_request", "top_p"),
    ({"settings": {"max_tokens": 10**30}}, 400, "context_length_exceeded", "max_tokens"),
    ({"settings": {"max_tokens": -4}}, 400, "invalid_request", "max_tokens"),
    ({"settings": {"stop": ["x"] * 1000}}, 400, "invalid_request", "stop"),
    ({"settings": {"seed": -1}}, 400, "invalid_request", "seed"),
    ({"settings": {"seed": 2**64}}, 400, "invalid_request", "seed"),
    ({"settings": {"system": "\0"}}, 400, "bad_text", "system"),
    ({"settings": {"json_schema": "{"}}, 400, "invalid_request", "json_schema"),
    ({"settings": {"json_schema": "[]"}}, 400, "invalid_request", "json_schema"),
    ({"settings": {"nonsense": 1}}, 400, "invalid_request", "nonsense"),
    ({"client_key": "not-a-uuid"}, 400, "invalid_request", "client_key"),
    ({"nonsense": 1}, 400, "invalid_request", "nonsense"),
]


@pytest.mark.parametrize(("changes", "status", "code", "field"), CASES)
def test_a_bad_request_is_named(
    page: Client, conversation: Conversation, changes: Any, status: int, code: str, field: Any
) -> None:
    answer = post(page, "jobs", body(conversation, **changes))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (status, code, field)
    assert len(error["message"]) > 15
    assert not Job.objects.exists()
    assert not conversation.messages.exists()


@pytest.mark.parametrize("changes", [case[0] for case in CASES])
def test_a_chinese_page_says_it_in_chinese(
    page: Client, conversation: Conversation, changes: Any
) -> None:
    page.cookies["llmasos_language"] = "zh-hans"
    message = post(page, "jobs", body(conversation, **changes)).json()["error"]["message"]
    assert any("\u4e00" <= sign <= "\u9fff" for sign in message), message


def test_a_chinese_page_says_how_much_of_the_budget_is_left(
    page: Client, conversation: Conversation
) -> None:
    set_budget(team=conversation.team, monthly_tokens=5)
    page.cookies["llmasos_language"] = "zh-hans"
    answer = post(page, "jobs", body(conversation, settings={"max_tokens": 40}))
    assert answer.status_code == 429
    assert "本月预算只剩 5 个" in answer.json()["error"]["message"]


@pytest.mark.parametrize("raw", ["", "{", "null", "[]", "7", '"x"', b"\xff\xfe", "[" * 100_000])
def test_what_is_not_json_is_refused(page: Client, raw: Any) -> None:
    for path in ("jobs", "conversations", "tokens"):
        assert post(page, path, raw).status_code == 400


def test_ten_megabytes_are_refused_unread(page: Client, conversation: Conversation) -> None:
    answer = post(page, "jobs", body(conversation, text="x" * 10_000_000))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_without_a_queue_the_answer_says_when_to_come_back(
    page: Client, conversation: Conversation, valkey: Any
) -> None:
    valkey.stop()
    try:
        answer = post(page, "jobs", body(conversation))
    finally:
        valkey.start()
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) >= 1
    assert not Job.objects.exists()


def test_visitors_are_limited_by_address(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update={"anonymous_jobs_per_hour": 2})
    page = Client()
    begun = post(page, "conversations", {"mode": "completion", "model": "echo"}).json()
    asked = {"conversation": begun["id"], "text": "x", "model": "echo", "mode": "completion",
             "settings": {"max_tokens": 1}}  # fmt: skip
    statuses = [post(page, "jobs", asked).status_code for _ in range(3)]
    assert statuses == [201, 201, 429]
    assert int(post(page, "jobs", asked)["Retry-After"]) >= 1


def test_an_outsider_finds_nothing(
    page: Client, outsider: User, member: User, team: Any, echo: CatalogueModel
) -> None:
    from portal.jobs.inputs import TextInput

    theirs = Conversation.objects.create(team=team, user=member, mode="chat", model="echo")
    job = create_job(
        team=team, user=member, source="t", model="echo", input=TextInput("x"), sampling={}
    )
    path = f"/playground/conversations/{theirs.pk}"
    answers = [
        page.get(path),
        page.patch(path, "{}", content_type="application/json"),
        page.delete(path),
        page.post(path + "/restore"),
        post(page, "jobs", body(theirs)),
        page.post(f"/playground/jobs/{job.pk.hex}/cancel"),
        page.post("/playground/jobs/nonsense/cancel"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert page.get("/playground/conversations").json() == {"conversations": []}
    request = RequestFactory().get("/")
    request.user, request.session = outsider, page.session
    with pytest.raises(Http404):
        conversation_page(request, theirs.pk)


def test_a_viewer_of_the_team_may_not_run_jobs(outsider: User, team: Any) -> None:
    from portal.teams.models import Membership

    Membership.objects.create(team=team, user=outsider, role=Membership.Role.VIEWER)
    page = Client()
    page.force_login(outsider)
    found = Conversation.objects.create(team=team, user=outsider, mode="chat", model="echo")
    assert post(page, "jobs", body(found)).status_code == 404


def test_tokens_are_counted(page: Client) -> None:
    count = post(page, "tokens", {"model": "echo", "text": "grüße"}).json()["count"]
    assert count >= 7
    assert post(page, "tokens", {"model": "nope", "text": "x"}).status_code == 404
    assert post(page, "tokens", {"model": "echo", "text": ""}).json() == {"count": 0}


def test_a_json_schema_becomes_the_jobs_guide(page: Client, conversation: Conversation) -> None:
    settings = {"max_tokens": 4, "json_schema": ' {"type": "object"} '}
    assert post(page, "jobs", body(conversation, settings=settings)).status_code == 201
    guide = Job.objects.get().sampling["guide"]
    assert guide == {"kind": "json_schema", "text": '{"type":"object"}'}
    assert (
        post(page, "jobs", body(conversation, settings={"json_schema": " \n"})).status_code == 201
    )
    assert ["guide" in job.sampling for job in Job.objects.all()].count(True) == 1
