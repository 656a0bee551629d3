"""OpenAI's own package, against the running system. The echo model says the prompt again."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from tests.running import MODEL


def test_it_lists_the_models(client: OpenAI) -> None:
    listed = client.models.list()
    assert MODEL in [model.id for model in listed]
    found = client.models.retrieve(MODEL)
    assert (found.id, found.object, found.owned_by) == (MODEL, "model", "llmasos")


def test_a_completion_goes_on_from_the_prompt(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Hello ", max_tokens=12, temperature=0)
    assert answer.choices[0].text == "Hello Hello "
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 12)
    assert answer.usage.total_tokens == 18
    assert answer.object == "text_completion"


def test_a_streamed_completion_is_the_whole_one_in_pieces(client: OpenAI) -> None:
    prompt = "Grüße, 世界 🌍. "
    whole = client.completions.create(model=MODEL, prompt=prompt, max_tokens=60, temperature=0)
    stream = client.completions.create(
        model=MODEL,
        prompt=prompt,
        max_tokens=60,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert "\ufffd" not in "".join(chunk.choices[0].text for chunk in chunks[:-2])
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_answer_comes_whole_and_streamed(client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Name a river."}]},
    ]
    whole = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        max_tokens=20,
        temperature=0,  # type: ignore[arg-type]
    )
    said = whole.choices[0].message
    assert said.role == "assistant"
    assert said.content
    stream = client.chat.completions.create(
        model=MODEL,
        messages=messages,  # type: ignore[arg-type]
        max_completion_tokens=20,
        temperature=0,
        stream=True,
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == said.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


async def test_many_async_streams_at_once_each_get_their_own_answer(aclient: AsyncOpenAI) -> None:
    async def ask(number: int) -> bool:
        prompt = f"stream {number}; "
        stream = await aclient.completions.create(
            model=MODEL, prompt=prompt, max_tokens=64, temperature=0, stream=True
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])
        return text == (prompt * 10)[:64]

    assert all(await asyncio.gather(*(ask(number) for number in range(16))))


def test_n_choices_are_seeded_and_differ(client: OpenAI) -> None:
    def ask(seed: int) -> list[str]:
        answer = client.completions.create(
            model=MODEL, prompt="x", max_tokens=9, n=3, seed=seed, temperature=1
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.text for choice in answer.choices]

    first = ask(7)
    assert len(set(first)) == 3
    assert ask(7) == first
    assert ask(8) != first


def test_streamed_choices_come_with_their_index(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "x"}],
        max_tokens=9,
        n=2,
        seed=7,
        stream=True,
    )
    texts = ["", ""]
    finishes = 0
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        finishes += chunk.choices[0].finish_reason is not None
    assert all(texts)
    assert finishes == 2


@pytest.mark.parametrize("stop", ["lo", ["zebra", "lo"]])
def test_a_stop_string_ends_the_answer_before_it(client: OpenAI, stop: str | list[str]) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="Hello ", max_tokens=50, temperature=0, stop=stop
    )
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hel", "stop")


def test_ignore_eos_goes_on_after_the_end(client: OpenAI) -> None:
    ids = [104, 105, 257]  # "hi" and the end-of-sequence token, which greedy echo repeats
    plain = client.completions.create(model=MODEL, prompt=ids, max_tokens=8, temperature=0)
    assert plain.choices[0].finish_reason == "stop"
    on = client.completions.create(
        model=MODEL, prompt=ids, max_tokens=8, temperature=0, extra_body={"ignore_eos": True}
    )
    assert on.choices[0].finish_reason == "length"
    assert on.usage is not None
    assert on.usage.completion_tokens == 8


def test_a_deterministic_answer_comes_again(client: OpenAI) -> None:
    again = [
        client.completions.create(
            model=MODEL, prompt="ab", max_tokens=8, seed=3, extra_body={"deterministic": True}
        )
        for _ in range(2)
    ]
    assert again[0].choices[0].text == again[1].choices[0].text
    with pytest.raises(BadRequestError, match="deterministic"):
        client.completions.create(model=MODEL, prompt="a", extra_body={"deterministic": "very"})


def test_chat_logprobs_name_tokens_and_bytes(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "ü"}],
        max_tokens=10,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    text = answer.choices[0].message.content or ""
    data = bytes(byte for token in logprobs.content for byte in token.bytes or [])
    assert data.decode(errors="replace") == text
    assert len(logprobs.content) == 10
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)
    assert "bytes:\\xc3" in {token.token for token in logprobs.content}


def test_streamed_logprobs_are_those_of_the_whole_answer(client: OpenAI) -> None:
    asked = {"model": MODEL, "prompt": "höher ", "max_tokens": 14, "temperature": 0, "logprobs": 1}
    whole = client.completions.create(**asked).choices[0].logprobs  # type: ignore[call-overload]
    pieces = [
        chunk.choices[0].logprobs
        for chunk in client.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    ]
    for field in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        joined = [value for piece in pieces for value in getattr(piece, field)]
        assert joined == getattr(whole, field)
    assert whole.text_offset == [0, 1, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("stream", [False, True])
def test_echo_scores_the_prompt_and_generates_nothing(client: OpenAI, stream: bool) -> None:
    asked = {"model": MODEL, "prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 0}
    if stream:
        chunks = list(client.completions.create(**asked, stream=True))  # type: ignore[call-overload]
        choice = chunks[0].choices[0]
        assert chunks[-1].choices[0].finish_reason == "length"
    else:
        answer = client.completions.create(**asked)  # type: ignore[call-overload]
        choice = answer.choices[0]
        assert answer.usage.completion_tokens == 0
    assert choice.text == "abc"
    assert choice.logprobs.tokens == ["a", "b", "c"]
    assert choice.logprobs.token_logprobs[0] is None
    assert len(choice.logprobs.token_logprobs) == 3


def test_several_prompts_are_answered_in_order(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=["one ", "two ", "three "], max_tokens=4, n=2, temperature=0
    )
    texts = [choice.text for choice in answer.choices]
    assert texts == ["one ", "one ", "two ", "two ", "thre", "thre"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4 + 4 + 6
    stream = client.completions.create(
        model=MODEL, prompt=["one ", "two "], max_tokens=4, temperature=0, stream=True
    )
    streamed = {0: "", 1: ""}
    for chunk in stream:
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == {0: "one ", 1: "two "}


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.completions.create(model="no-such-model", prompt="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(NotFoundError) as caught:
        client.models.retrieve("no-such-model")
    assert caught.value.code == "model_not_found"


def test_answers_carry_a_request_id(client: OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model=MODEL, prompt="x", max_tokens=1)
    assert raw.headers["x-request-id"]
    assert json.loads(raw.text)["id"].startswith("cmpl-")
