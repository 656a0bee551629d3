"""What bodies of requests are taken for, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from inference_workers.contract import Guide
from portal.api.errors import from_validation
from portal.api.schemas import ChatRequest, CompletionRequest

TEXT: dict[str, Any] = {"model": "m", "prompt": "Hello"}
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def refused(kind: Any, body: dict[str, Any]) -> tuple[str | None, str, str]:
    """Param, code and message of the refusal."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    problems = [
        {**problem, "loc": ("body", "body", *problem["loc"])} for problem in caught.value.errors()
    ]
    error = from_validation(problems)
    return error.param, error.code, error.message


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("tools", [{"type": "function"}], "tools[0].function"),
        ("response_format", {"type": "grammar"}, "response_format.type"),
        ("guided_regex", "a" * 20_000, "guided_regex"),
        ("guided_json", {"type": "object"}, "guided_json"),
        ("audio", {"voice": "x"}, "audio"),
        ("store", True, "store"),
        ("reasoning_effort", "high", "reasoning_effort"),
        ("made_up", 1, "made_up"),
        ("temperature", -0.1, "temperature"),
        ("temperature", "1", "temperature"),
        ("temperature", 1e9, "temperature"),
        ("n", 0, "n"),
        ("n", 17, "n"),
        ("top_p", 0, "top_p"),
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", 10**12, "max_tokens"),
        ("seed", -1, "seed"),
        ("seed", 1.5, "seed"),
        ("stop", ["x"] * 1000, "stop"),
        ("stop", [""], "stop"),
        ("logit_bias", {"the": 1}, "logit_bias"),
        ("top_logprobs", 21, "top_logprobs"),
        ("stream", "yes", "stream"),
        ("messages", [], "messages"),
        ("messages", [{"role": "user", "content": "\ud800"}], "messages[0].content"),
        ("messages", [{"role": "wizard", "content": "x"}], "messages[0].role"),
        ("messages", [{"role": "user"}], "messages[0].content"),
        ("messages", [{"role": "user", "content": "x", "name": "Ann"}], "messages[0].name"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[0].content[0].type",
        ),
    ],
)
def test_a_refused_field_is_named(field: str, value: Any, param: str) -> None:
    found, _code, message = refused(ChatRequest, CHAT | {field: value})
    assert found == param
    assert f"'{param}'" in message
    assert "None" not in message, "a word of the language that we write in"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", None),
        ("tools", []),
        ("response_format", {"type": "text"}),
        ("store", False),
        ("modalities", ["text"]),
        ("service_tier", "auto"),
        ("n", None),
        ("stop", None),
        ("temperature", 0),
        ("top_k", -1),
    ],
)
def test_a_field_that_changes_nothing_is_let_through(field: str, value: Any) -> None:
    ChatRequest.model_validate(CHAT | {field: value})


def test_both_names_of_the_token_limit_work_and_not_together() -> None:
    assert ChatRequest.model_validate(CHAT | {"max_tokens": 7}).sampling().max_tokens == 7
    newer = ChatRequest.model_validate(CHAT | {"max_completion_tokens": 0})
    assert newer.sampling().max_tokens == 0
    _, _, message = refused(ChatRequest, CHAT | {"max_tokens": 7, "max_completion_tokens": 7})
    assert "max_completion_tokens" in message


def test_prompts_come_as_text_ids_or_lists_of_either() -> None:
    def prompts(prompt: Any) -> list[str | list[int]]:
        return CompletionRequest.model_validate({"model": "m", "prompt": prompt}).prompts()

    assert prompts("a") == ["a"]
    assert prompts(["a", "b"]) == ["a", "b"]
    assert prompts([1, 2]) == [[1, 2]]
    assert prompts([[1], [2, 3]]) == [[1], [2, 3]]


@pytest.mark.parametrize(
    "prompt", ["", [], [[]], [-1], ["a", 1], {"text": "a"}, [["a"]], ["a"] * 33]
)
def test_any_other_prompt_is_refused(prompt: Any) -> None:
    param, _, _ = refused(CompletionRequest, {"model": "m", "prompt": prompt})
    assert param is not None
    assert param.startswith("prompt")


def test_echo_with_logprobs_scores_the_prompt() -> None:
    body = {"model": "m", "prompt": "a", "echo": True, "logprobs": 3, "max_tokens": 0}
    sampling = CompletionRequest.model_validate(body).sampling()
    assert (sampling.max_tokens, sampling.logprobs, sampling.prompt_logprobs) == (0, 3, 3)


@pytest.mark.parametrize(("kind", "body"), [(ChatRequest, CHAT), (CompletionRequest, TEXT)])
def test_both_endpoints_take_a_schema_or_a_pattern(kind: Any, body: dict[str, Any]) -> None:
    def guide(**fields: Any) -> Any:
        return kind.model_validate(body | fields).sampling().guide

    schema = {"type": "object", "properties": {"名": {"type": "string"}}}
    named = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}
    assert guide() is None
    assert guide(response_format={"type": "text"}) is None
    assert guide(response_format={"type": "json_object"}).text == '{"type":"object"}'
    found = guide(response_format=named)
    assert (found.kind, json.loads(found.text)) == ("json_schema", schema)
    assert guide(guided_regex="yes|no") == Guide(kind="regex", text="yes|no")
    assert "not both" in refused(kind, body | {"guided_regex": "a", "response_format": named})[2]
