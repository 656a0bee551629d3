"""``/v1/responses`` from the log: events that keep their numbers, turns that go on, calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.jobs.inputs import tokenizer_of
from portal.responses.models import Response
from portal.teams.models import Team
from portal.teams.services import create_key, ensure_personal_team
from tests.portal.api.scripted import Caller, events
from tests.portal.api.test_tools import CALL, WEATHER
from tests.portal.jobs.conftest import Worker, worker  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("echo")]
PATH = "/v1/responses"
ASK = {"input": "Name a river."}
FUNCTION = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]


@pytest.fixture
def caller(team: Team, member: User, worker: Worker) -> Caller:  # noqa: F811
    return Caller(create_key(team=team, user=member, name="test")[1], worker)


async def answered(caller: Caller, *texts: str, **fields: Any) -> dict[str, Any]:
    """The response at the end of a stream."""
    found = await caller.answered(PATH, ASK | fields, *texts)
    response: dict[str, Any] = found[-1]["response"]
    return response


async def read(caller: Caller, path: str, status: int = 200) -> Any:
    found = await caller.send("get", path)
    assert found.status_code == status, found.content
    return found.json()


async def shown(caller: Caller, echo: CatalogueModel) -> str:
    assert caller.job is not None
    return (await sync_to_async(tokenizer_of)(echo)).decode(caller.job.input_ids)


async def test_events_are_numbered_and_end_with_the_whole(caller: Caller) -> None:
    said = await caller.answered(PATH, ASK, "The ", "Rhine")
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    assert [event["type"].removeprefix("response.") for event in said] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    response = said[-1]["response"]
    assert response["output"][0]["content"][0]["text"] == "The Rhine"
    assert response["usage"]["output_tokens"] == 2
    assert await read(caller, f"{PATH}/{response['id']}") == response


async def test_a_reader_goes_on_from_any_event(caller: Caller) -> None:
    whole = await caller.answered(PATH, ASK, "a", "b", "c")
    path = f"{PATH}/{whole[-1]['response']['id']}?stream=true"
    for seen in range(-1, len(whole)):
        rest = await events(await caller.send("get", f"{path}&starting_after={seen}"))
        assert rest == whole[seen + 1 :]


async def test_a_turn_goes_on_from_the_one_before(caller: Caller, echo: CatalogueModel) -> None:
    first = await answered(caller, "The Rhine.", instructions="Be brief.")
    second = await answered(caller, "Very.", input="Long?", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    text = await shown(caller, echo)
    assert "User: Name a river.\nAssistant: The Rhine.\nUser: Long?" in text
    assert "Be brief." not in text
    items = (await read(caller, f"{PATH}/{second['id']}/input_items?order=asc"))["data"]
    assert [item["content"][0]["text"] for item in items] == ["Name a river.", "Long?"]
    page = await read(caller, f"{PATH}/{second['id']}/input_items?limit=1")
    assert page["has_more"]
    rest = await read(caller, f"{PATH}/{second['id']}/input_items?after={page['last_id']}")
    assert [item["id"] for item in rest["data"]] == [items[0]["id"]]


async def test_a_call_becomes_an_item_and_its_result_goes_back(
    caller: Caller, echo: CatalogueModel
) -> None:
    said = await caller.answered(PATH, ASK | {"tools": [FUNCTION]}, CALL[:50], CALL[50:])
    response = said[-1]["response"]
    call = response["output"][0]
    assert (call["type"], call["name"]) == ("function_call", "weather")
    deltas = [event["delta"] for event in said if event["type"].endswith("arguments.delta")]
    assert "".join(deltas) == call["arguments"]
    json.loads(call["arguments"])
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    await answered(caller, "Sun.", input=[result], previous_response_id=response["id"])
    assert "Result of weather: sunny" in await shown(caller, echo)
    await answered(caller, "Sun.", input=[{"role": "user", "content": "x"}, call, result])
    assert "Result of weather: sunny" in await shown(caller, echo)


async def test_a_background_response_is_read_and_cancelled(caller: Caller) -> None:
    made = (await caller.send("post", PATH, {"model": "echo", **ASK, "background": True})).json()
    assert made["status"] == "queued"
    ended = (await caller.send("post", f"{PATH}/{made['id']}/cancel")).json()
    assert ended["status"] == "cancelled"
    foreground = await answered(caller, "x")
    refused = await caller.send("post", f"{PATH}/{foreground['id']}/cancel")
    assert refused.status_code == 400


async def test_what_is_not_stored_or_deleted_is_not_there(caller: Caller) -> None:
    passing = await answered(caller, "x", store=False)
    assert passing["store"] is False
    await read(caller, f"{PATH}/{passing['id']}", 404)
    kept = await answered(caller, "x")
    later = await answered(caller, "y", previous_response_id=kept["id"])
    assert (await caller.send("delete", f"{PATH}/{kept['id']}")).json()["deleted"]
    await read(caller, f"{PATH}/{kept['id']}", 404)
    body = {"model": "echo", **ASK, "previous_response_id": later["id"]}
    refused = await caller.send("post", PATH, body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "previous_response_id"


async def test_another_teams_response_is_not_there(
    caller: Caller,
    outsider: User,
    worker: Worker,  # noqa: F811
) -> None:
    team = await sync_to_async(ensure_personal_team)(user=outsider)
    _, secret = await sync_to_async(create_key)(team=team, user=outsider, name="x")
    stranger = Caller(secret, worker)
    kept = (await answered(caller, "x"))["id"]
    for method, path in (
        ("get", f"{PATH}/{kept}"),
        ("get", f"{PATH}/{kept}?stream=true"),
        ("get", f"{PATH}/{kept}/input_items"),
        ("post", f"{PATH}/{kept}/cancel"),
        ("delete", f"{PATH}/{kept}"),
    ):
        assert (await stranger.send(method, path)).status_code == 404, path
    body = {"model": "echo", **ASK, "previous_response_id": kept}
    assert (await stranger.send("post", PATH, body)).status_code == 404
    assert await Response.objects.acount() == 1


async def test_the_same_key_makes_one_response(caller: Caller) -> None:
    body = {"model": "echo", **ASK, "background": True}
    key = {"Idempotency-Key": "once"}
    ids = {(await caller.send("post", PATH, body, **key)).json()["id"] for _ in range(3)}
    assert len(ids) == 1


async def test_logprobs_are_said_when_asked_for(caller: Caller) -> None:
    found = await answered(caller, "x", include=["message.output_text.logprobs"])
    assert found["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
        ({"background": True, "store": False}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"colour": 1}, "colour"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "function", "name": "none"}}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(caller: Caller, fields: Any, param: str) -> None:
    found = await caller.send("post", PATH, {"model": "echo", **ASK, **fields})
    assert found.status_code == 400, found.content
    assert found.json()["error"]["param"] == param
