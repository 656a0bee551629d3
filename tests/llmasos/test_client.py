"""A portal from Python: pieces as they come, every failure one clear error, nothing sent twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from llmasos import LLMa
from llmasos.errors import (
    GenerationFailed,
    InvalidRequest,
    LLMasOSError,
    ModelNotFound,
    ModelUnavailable,
    RateLimited,
    Timeout,
    Unauthorized,
    Unreachable,
)
from tests.llmasos.portal_double import KEY, Portal, serving


@pytest.fixture
def portal() -> Iterator[Portal]:
    with serving() as portal:
        yield portal


def test_pieces_come_as_they_are_sent(portal: Portal) -> None:
    with LLMa.connect(portal.url, api_key=KEY) as model, model.stream("Say hello") as stream:
        assert list(stream) == ["Hel", "lo ", "你好", "🙂"]
        assert stream.text == "Hello 你好🙂"
        assert stream.reason == "length"
        assert stream.usage is not None
        assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (3, 4)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_as_people_write_it(suffix: str, portal: Portal) -> None:
    with LLMa.connect(portal.url + suffix) as model:
        assert model.generate("x") == "Hello 你好🙂"


def test_it_takes_the_first_model_or_the_named_one(portal: Portal) -> None:
    with LLMa.connect(portal.url) as first, LLMa.connect(portal.url, model="helper") as second:
        assert (first.model, first.kind) == ("gemma-3-270m", "base")
        assert (second.model, second.kind) == ("helper", "instruct")
    with pytest.raises(ModelNotFound, match="It offers: gemma-3-270m, helper"):
        LLMa.connect(portal.url, model="nothing")
    portal.models.clear()
    with pytest.raises(ModelUnavailable):
        LLMa.connect(portal.url)


def test_options_are_sent_as_the_portal_names_them(portal: Portal) -> None:
    with LLMa.connect(portal.url) as model:
        model.generate("x", max_tokens=5, temperature=0, stop="\n", seed=3, top_p=0.5)
        path, body = portal.seen[-1]
    assert path == "/v1/completions"
    assert body["prompt"] == "x"
    assert (body["max_tokens"], body["temperature"], body["stop"]) == (5, 0, ["\n"])
    assert (body["seed"], body["top_p"]) == (3, 0.5)
    assert "repetition_penalty" not in body


def test_a_schema_and_a_pattern_are_sent_as_the_portal_names_them(portal: Portal) -> None:
    schema = {"type": "object", "properties": {"名": {"type": "string"}}}
    with LLMa.connect(portal.url) as model:
        model.generate("x", schema=schema)
        sent = portal.seen[-1][1]
        assert sent["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        }
        assert not {"schema", "regex"} & sent.keys()
        model.chat([{"role": "user", "content": "Hi"}], regex="a|b")
        assert portal.seen[-1][1]["guided_regex"] == "a|b"
        assert "response_format" not in portal.seen[-1][1]


def test_a_conversation_goes_to_the_chat_route(portal: Portal) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    with LLMa.connect(portal.url, model="helper") as model:
        assert model.chat(messages) == "Hello 你好🙂"
        assert portal.seen[-1][0] == "/v1/chat/completions"
        assert portal.seen[-1][1]["messages"] == messages


def test_an_instruct_model_is_asked_and_a_base_model_is_shown(portal: Portal) -> None:
    with LLMa.connect(portal.url) as base, LLMa.connect(portal.url, model="helper") as instruct:
        base.summarize("A long text about rivers.")
        path, body = portal.seen[-1]
        assert path == "/v1/completions"
        assert body["prompt"].count("rivers") == 1
        assert body["stop"] == ["\n"]
        instruct.summarize("A long text about rivers.")
        path, body = portal.seen[-1]
        assert path == "/v1/chat/completions"
        assert "rivers" in body["messages"][0]["content"]
        assert "stop" not in body


def test_only_the_continuation_is_scored(portal: Portal) -> None:
    with LLMa.connect(portal.url) as model:
        assert model.score("one two", [" abc", " de fgh"]) == [-3.0, -5.0]


@pytest.mark.parametrize(
    ("mode", "kind", "status", "retry"),
    [
        ("busy", ModelUnavailable, 503, 7.0),
        ("limited", RateLimited, 429, 60.0),
        ("strange", ModelUnavailable, 502, None),
    ],
)
def test_a_refusal_keeps_the_portals_words(
    mode: str, kind: type[LLMasOSError], status: int, retry: float | None, portal: Portal
) -> None:
    with LLMa.connect(portal.url) as model:
        portal.mode = mode
        with pytest.raises(kind) as caught:
            model.generate("x")
    assert (caught.value.status, caught.value.retry_after) == (status, retry)
    assert len(portal.seen) == 1, "it was sent twice"


def test_a_wrong_key_is_said(portal: Portal) -> None:
    with pytest.raises(Unauthorized, match="Make a new one") as caught:
        LLMa.connect(portal.url, api_key="sk-wrong")
    assert caught.value.code == "invalid_api_key"


def test_a_stream_that_is_cut_off_is_no_answer(portal: Portal) -> None:
    with LLMa.connect(portal.url) as model:
        portal.mode = "cut"
        stream = model.stream("x")
        assert [next(stream), next(stream)] == ["Hel", "lo "]
        with pytest.raises((GenerationFailed, Unreachable)):
            next(stream)
        assert len(portal.seen) == 1


def test_an_error_inside_a_stream_is_raised(portal: Portal) -> None:
    with LLMa.connect(portal.url) as model:
        portal.mode = "broken"
        with pytest.raises(GenerationFailed, match="worker was lost") as caught:
            model.generate("x")
        assert caught.value.code == "worker_lost"


def test_silence_is_a_timeout(portal: Portal) -> None:
    with LLMa.connect(portal.url, timeout=0.3) as model:
        portal.mode = "silent"
        with pytest.raises(Timeout):
            model.generate("x")
        assert len(portal.seen) == 1


def test_leaving_a_stream_hangs_up(portal: Portal) -> None:
    with LLMa.connect(portal.url) as model:
        portal.mode = "endless"
        with model.stream("x") as stream:
            next(stream)
        assert portal.gone.wait(5)


def test_many_threads_share_one_connection_pool(portal: Portal) -> None:
    answers: list[str] = []
    with LLMa.connect(portal.url) as model:
        threads = [
            threading.Thread(target=lambda: answers.append(model.generate("x"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["Hello 你好🙂"] * 8


def test_an_address_where_nothing_answers_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="can't be reached"):
        LLMa.connect(f"http://127.0.0.1:{port}")


def test_something_else_that_answers_is_said(portal: Portal) -> None:
    portal.mode = "not json"
    with pytest.raises(Unreachable, match="not an LLMasOS portal"):
        LLMa.connect(portal.url)


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x", "http://[", "http://a b"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises((InvalidRequest, Unreachable)):
        LLMa.connect(url)


def test_a_text_that_cannot_be_sent_is_refused(portal: Portal) -> None:
    with LLMa.connect(portal.url) as model:
        with pytest.raises(InvalidRequest, match="surrogate"):
            model.generate("a\ud83d")
        with pytest.raises(InvalidRequest, match="temprature"):
            model.generate("a", temprature=1)  # type: ignore[call-arg]
        with pytest.raises(InvalidRequest, match="stop"):
            model.generate("a", stop=[""])
