"""What can't be served is refused by name, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from inference_workers.contract import Sampling
from portal.jobs.errors import InvalidRequest
from portal.jobs.inputs import ChatInput, TextInput, TokenInput
from portal.jobs.models import Job
from portal.usage.models import Reservation

INPUTS = [
    (TextInput(""), "prompt", "empty_prompt"),
    (TextInput("a\0b"), "prompt", "bad_text"),
    (TextInput("a\ud800b"), "prompt", "bad_text"),
    (TextInput("x" * 10_000_000), "prompt", "context_length_exceeded"),
    (TextInput("x" * 100_000), "prompt", "context_length_exceeded"),
    (ChatInput([]), "messages", None),
    (ChatInput([{"role": "user", "content": "  "}]), "messages", "empty_prompt"),
    (ChatInput([{"role": "wizard", "content": "x"}]), "messages", "bad_chat_template"),
    (ChatInput([{"role": "user", "content": 7}]), "messages", "bad_chat_template"),
    (ChatInput([{"role": "user", "content": "\0"}]), "messages", "bad_text"),
    (TokenInput([]), "prompt", "empty_prompt"),
    (TokenInput([-1]), "prompt", "invalid_request"),
    (TokenInput([10**9]), "prompt", "invalid_request"),
    (TokenInput(["1"]), "prompt", "invalid_request"),  # type: ignore[list-item]
]

SAMPLINGS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": math.nan}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"temperature": 1e300}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_tokens": 2, "min_tokens": 3}, "min_tokens"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"stop": ["x"] * 1000}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["x" * 1000]}, "stop"),
    ({"stop": ["\0"]}, "stop"),
    ({"logit_bias": {10**9: 1.0}}, "logit_bias"),
    ({"logit_bias": {-1: 1.0}}, "logit_bias"),
    ({"logit_bias": {1: 1e9}}, "logit_bias"),
    ({"logit_bias": {1: math.nan}}, "logit_bias"),
    ({"logit_bias": dict.fromkeys(range(2000), 1.0)}, "logit_bias"),
    ({"stop_token_ids": [10**9]}, "stop_token_ids"),
    ({"logprobs": 1000}, "logprobs"),
    ({"nonsense": 1}, "nonsense"),
]


def nothing_was_written() -> bool:
    return not Job.objects.exists() and not Reservation.objects.exists()


@pytest.mark.parametrize(("given", "field", "code"), INPUTS)
def test_a_bad_prompt_is_refused(make_job: Callable[..., Job], given: Any, field: str, code: Any):
    with pytest.raises(InvalidRequest) as refusal:
        make_job(input=given)
    assert refusal.value.field == field
    assert code is None or refusal.value.code == code
    assert len(refusal.value.message) > 20
    assert nothing_was_written()


@pytest.mark.parametrize(("sampling", "field"), SAMPLINGS)
def test_a_bad_parameter_is_refused(make_job: Callable[..., Job], sampling: Any, field: str):
    with pytest.raises(InvalidRequest) as refusal:
        make_job(sampling=sampling)
    assert refusal.value.field == field
    assert nothing_was_written()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"model": "no-such-model"}, "model"),
        ({"model": "\0"}, "model"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"idempotency_key": "k" * 1000}, "idempotency_key"),
        ({"idempotency_key": "a\nb"}, "idempotency_key"),
    ],
)
def test_other_bad_fields_are_refused(make_job: Callable[..., Job], given: Any, field: str):
    with pytest.raises(InvalidRequest) as refusal:
        make_job(**given)
    assert refusal.value.field == field
    assert nothing_was_written()


def test_the_longest_prompt_that_fits_is_taken_and_one_token_more_is_not(
    make_job: Callable[..., Job], echo: Any
):
    room = echo.context_length
    job = make_job(input=TokenInput([65] * (room - 1)), sampling={})
    assert Sampling.model_validate(job.sampling).max_tokens == 1
    make_job(input=TokenInput([65] * room), sampling={"max_tokens": 0})
    with pytest.raises(InvalidRequest) as refusal:
        make_job(input=TokenInput([65] * room), sampling={})
    assert refusal.value.code == "context_length_exceeded"
    assert f"{room:,}" in refusal.value.message
