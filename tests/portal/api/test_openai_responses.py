"""The responses API and the rest of OpenAI's surface, by OpenAI's own package."""

from __future__ import annotations

import asyncio
import time

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from tests.running import MODEL, Running


def test_a_response_is_made_read_gone_on_from_and_deleted(client: OpenAI) -> None:
    made = client.responses.create(
        model=MODEL, input="hello", max_output_tokens=12, temperature=0, metadata={"a": "b"}
    )
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert len(made.output_text) == 12
    assert made.metadata == {"a": "b"}
    assert client.responses.retrieve(made.id).output_text == made.output_text
    later = client.responses.create(
        model=MODEL, input="more", previous_response_id=made.id, max_output_tokens=4
    )
    assert later.previous_response_id == made.id
    items = client.responses.input_items.list(later.id, order="asc")
    assert [item.type for item in items] == ["message", "message"]
    client.responses.delete(made.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(made.id)


def test_a_streamed_response_is_resumed_behind_any_event(client: OpenAI) -> None:
    stream = client.responses.create(
        model=MODEL, input="hello", max_output_tokens=9, temperature=0, stream=True
    )
    whole = list(stream)
    assert whole[0].type == "response.created"
    last = whole[-1]
    assert last.type == "response.incomplete"
    text = "".join(e.delta for e in whole if e.type == "response.output_text.delta")
    assert text == last.response.output_text
    rest = list(client.responses.retrieve(last.response.id, stream=True, starting_after=5))
    assert [e.sequence_number for e in rest] == [e.sequence_number for e in whole[6:]]


def test_the_packages_stream_helper_reads_the_events(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="hi", max_output_tokens=5) as stream:
        seen = list(stream)
    assert seen[-1].type == "response.incomplete"
    assert len(seen[-1].response.output) == 1


async def test_background_work_is_polled_and_cancelled(aclient: AsyncOpenAI) -> None:
    made = await aclient.responses.create(
        model=MODEL, input="hello", background=True, max_output_tokens=6, temperature=0
    )
    assert made.status == "queued"
    give_up = time.monotonic() + 20
    while made.status in ("queued", "in_progress"):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)
        made = await aclient.responses.retrieve(made.id)
    assert made.status == "incomplete"
    long = await aclient.responses.create(
        model=MODEL, input="hello", background=True, max_output_tokens=2000
    )
    assert (await aclient.responses.cancel(long.id)).status == "cancelled"


def test_what_cannot_be_is_an_error_with_its_field(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", truncation="auto")
    assert (caught.value.param, caught.value.code) == ("truncation", "unsupported_parameter")
    with pytest.raises(NotFoundError) as missing:
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_none")
    assert missing.value.param == "previous_response_id"
    with pytest.raises(BadRequestError) as suffix:
        client.completions.create(model=MODEL, prompt="x", suffix="y")
    assert suffix.value.param == "suffix"


def test_a_harness_scores_token_ids_without_generating(client: OpenAI) -> None:
    prompts = [[104, 105], [104, 105, 33]]
    answer = client.completions.create(
        model=MODEL, prompt=prompts, max_tokens=0, echo=True, logprobs=1, temperature=0
    )
    for prompt, choice in zip(prompts, answer.choices, strict=True):
        assert choice.text == bytes(prompt).decode()
        assert choice.logprobs is not None
        scores = choice.logprobs.token_logprobs or []
        assert scores[0] is None
        assert scores[1:] == [pytest.approx(-0.1)] * (len(prompt) - 1)
        assert len(choice.logprobs.top_logprobs or []) == len(prompt)


async def test_a_hundred_requests_with_one_key_make_one_job(
    running: Running, aclient: AsyncOpenAI
) -> None:
    async def ask() -> str:
        answer = await aclient.completions.create(
            model=MODEL, prompt="once ", max_tokens=8, temperature=0,
            extra_headers={"Idempotency-Key": "a-hundred"},
        )  # fmt: skip
        return f"{answer.id} {answer.choices[0].text}"

    answers = await asyncio.gather(*(ask() for _ in range(100)))
    assert len(set(answers)) == 1
    count = "print(Job.objects.filter(idempotency_key='a-hundred').count())"
    assert running.python(f"from portal.jobs.models import Job\n{count}") == "1"
