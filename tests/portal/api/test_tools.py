"""Tools and formats: what the job must match, what the model is shown, and calls read back."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pydantic import ValidationError

from inference_workers.contract import Failed
from llmasos.text.calls import CallReader
from portal.accounts.models import User
from portal.api.schemas import ChatRequest
from portal.catalogue.models import CatalogueModel
from portal.jobs import links
from portal.jobs.inputs import tokenizer_of
from portal.teams.models import Team
from portal.teams.services import create_key
from tests.portal.api.scripted import Caller
from tests.portal.jobs.conftest import Worker, worker  # noqa: F401  (a fixture)

ASK: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Rome?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
REFERRING = {
    "type": "function",
    "function": {"name": "x", "parameters": {"$defs": {}, "$ref": "#/$defs/a"}},
}
TIME = {"type": "function", "function": {"name": "time"}}
CALL = '{"name": "weather", "arguments": {"city": "Rome }\\" {"}}'
ARGUMENTS = '{"city": "Rome }\\" {"}'


def read(*texts: str, names: tuple[str, ...] = ("weather",)) -> tuple[str, str | None, str]:
    """Text, called tool and arguments of an answer that comes in ``texts``."""
    reader = CallReader(names)
    parts = [*(reader.push(text) for text in texts), reader.end()]
    return (
        "".join(part.text for part in parts),
        reader.called,
        "".join(part.arguments for part in parts),
    )


@pytest.mark.parametrize("text", [CALL, f" \n{CALL}\n", f"<tool_call>\n{CALL}\n</tool_call>"])
def test_a_call_is_read_the_same_however_it_is_cut(text: str) -> None:
    chance = random.Random(7)
    for _ in range(200):
        cuts = sorted(chance.choices(range(len(text)), k=chance.randrange(12)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert read(*pieces) == ("", "weather", ARGUMENTS)


@pytest.mark.parametrize(
    "text",
    ["Sunny.", '{"name": "other", "arguments": {}}', '{"name": "wea', "<tool", "", "{}", "< 3"],
)
def test_what_is_no_call_is_text_to_the_last_character(text: str) -> None:
    assert read(*text) == (text, None, "")
    assert read(text) == (text, None, "")


def test_arguments_come_while_they_are_made() -> None:
    reader = CallReader(["weather"])
    assert reader.push('{"name": "weather", "argu').text == ""
    opened = reader.push('ments": {"city"')
    assert (opened.name, opened.arguments) == ("weather", '{"city"')
    assert reader.push(': "Rome"').arguments == ': "Rome"'


def guide(**fields: Any) -> tuple[str, str] | None:
    body = {"model": "m", "messages": ASK} | fields
    found = ChatRequest.model_validate(body).sampling().guide
    return found and (found.kind, found.text)


def test_formats_become_schemas() -> None:
    assert guide() is None
    assert guide(response_format={"type": "text"}) is None
    assert guide(response_format={"type": "json_object"}) == ("json_schema", '{"type":"object"}')
    named = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}
    assert guide(response_format=named) == ("json_schema", '{"type":"array"}')


def test_tool_choice_decides_what_may_be_written() -> None:
    def starts(**fields: Any) -> str:
        found = guide(tools=[WEATHER, TIME], **fields)
        assert found is not None
        assert found[0] == "lark"
        return found[1].splitlines()[0]

    assert guide(tools=[WEATHER], tool_choice="none") is None
    assert starts(tool_choice="required") == "start: call"
    assert starts().endswith("| TEXT?")
    either = guide(tools=[WEATHER, TIME], response_format={"type": "json_object"})
    assert either is not None
    kinds = json.loads(either[1])["anyOf"]
    assert [kind.get("properties", {}).get("name") for kind in kinds] == [
        {"const": "weather"}, {"const": "time"}, None,
    ]  # fmt: skip
    one = guide(
        tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "time"}}
    )
    assert one is not None
    assert "weather" not in one[1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [REFERRING], "response_format": {"type": "json_object"}}, "tools"),
        ({"tools": [{"type": "code"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "x"}]}, "messages"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"model": "m", "messages": ASK} | fields)
    assert caught.value.errors()[0]["loc"][0] == param


@pytest.mark.parametrize("schema", [{"a": "\ud800"}, {"a": "x" * 200_000}])
def test_a_schema_that_is_no_unicode_or_too_large_is_refused(schema: Any) -> None:
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({"model": "m", "messages": ASK, "response_format": given})


@pytest.fixture
def caller(team: Team, member: User, worker: Worker) -> Caller:  # noqa: F811
    return Caller(create_key(team=team, user=member, name="test")[1], worker)


@pytest.mark.django_db(transaction=True)
async def test_a_call_is_streamed_as_openai_does(caller: Caller, echo: CatalogueModel) -> None:
    chunks = await caller.answered(
        "/v1/chat/completions",
        {"messages": ASK, "tools": [WEATHER]},
        CALL[:9],
        CALL[9:44],
        CALL[44:],
    )
    deltas = [c["choices"][0]["delta"] for c in chunks]
    calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
    assert calls[0]["id"].startswith("call_")
    assert calls[0]["function"]["name"] == "weather"
    assert "".join(call["function"]["arguments"] for call in calls) == ARGUMENTS
    assert not any(delta.get("content") for delta in deltas)
    assert caller.job is not None
    assert caller.job.sampling.guide is not None
    shown = tokenizer_of(echo).decode(caller.job.input_ids)
    assert "- weather: Says the weather." in shown
    assert "What is the weather in Rome?" in shown


@pytest.mark.django_db(transaction=True)
async def test_a_text_is_streamed_as_text_beside_tools(
    caller: Caller, echo: CatalogueModel
) -> None:
    chunks = await caller.answered(
        "/v1/chat/completions", {"messages": ASK, "tools": [WEATHER]}, "<", " 30", " degrees"
    )
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    assert text == "< 30 degrees"


@pytest.mark.django_db(transaction=True)
async def test_a_tools_result_goes_back_to_the_model(caller: Caller, echo: CatalogueModel) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "noon"}
    await caller.answered("/v1/chat/completions", {"messages": [*ASK, said, result]}, "Noon.")
    assert caller.job is not None
    shown = tokenizer_of(echo).decode(caller.job.input_ids)
    assert json.dumps({"name": "time", "arguments": {}}) in shown
    assert "Result of time: noon" in shown


@pytest.mark.django_db(transaction=True)
async def test_a_schema_that_the_worker_cannot_follow_is_refused_by_name(
    caller: Caller, echo: CatalogueModel
) -> None:
    body = {"model": "echo", "messages": ASK, "response_format": {"type": "json_object"}}
    asking = asyncio.create_task(caller.send("post", "/v1/chat/completions", body))
    while not await sync_to_async(lambda: links.queue().depth("echo"))():  # noqa: ASYNC110
        await asyncio.sleep(0.02)

    def refuse() -> None:
        caller.worker.claim()
        caller.worker.write(Failed(code="guide_unsupported", message="It can't be followed."))

    await sync_to_async(refuse)()
    response = await asking
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"
