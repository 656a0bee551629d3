"""What a request may ask for. Pure: no database, no Redis, no files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from inference_workers.contract import Sampling
from portal.jobs import guides
from portal.jobs.errors import InvalidRequest

STOP_CHARACTERS = 256
BIAS_LIMIT = 100.0
SEED_LIMIT = 2**63
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean_text(value: str, field: str) -> str:
    """``value``, if databases and tokenizers can take it."""
    if "\0" in value:
        raise InvalidRequest(
            field, "The text contains a NUL character. Remove it and try again.", "bad_text"
        )
    if _SURROGATE.search(value):
        raise InvalidRequest(
            field,
            "The text contains half a surrogate pair, which is no character. Send valid Unicode.",
            "bad_text",
        )
    return value


def read_sampling(given: Sampling | Mapping[str, Any], *, vocab_size: int) -> Sampling:
    """Sampling from outside, its ``max_tokens`` still as given (unset: the default that fits).

    Raises:
        InvalidRequest: with the field's name.
    """
    values = given.model_dump(exclude_unset=True) if isinstance(given, Sampling) else dict(given)
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(name, f"{name} must be a finite number.")
        if isinstance(value, bool) and name not in ("ignore_eos", "deterministic"):
            raise InvalidRequest(name, f"{name} must be a number, not true or false.")
    try:
        sampling = Sampling.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from None
    _check_stop(sampling)
    _check_ids(sampling, vocab_size)
    if sampling.guide is not None:
        clean_text(sampling.guide.text, "guide")
        guides.check(sampling.guide)
    if "max_tokens" in values and sampling.min_tokens > sampling.max_tokens:
        raise InvalidRequest("min_tokens", "min_tokens must not be above max_tokens.")
    return sampling


def _refusal(error: ValidationError) -> InvalidRequest:
    problem = error.errors(include_url=False, include_input=False)[0]
    field = str(problem["loc"][0]) if problem["loc"] else None
    if problem["type"] == "extra_forbidden":
        return InvalidRequest(field, f"There is no parameter {str(field)[:60]!r}. Leave it out.")
    text = str(problem["msg"]).replace("Input should", "it should")
    return InvalidRequest(field, f"{field} can't have this value: {text}.")


def _check_stop(sampling: Sampling) -> None:
    for sequence in sampling.stop:
        if not 1 <= len(sequence) <= STOP_CHARACTERS:
            raise InvalidRequest(
                "stop", f"Each stop sequence has 1 to {STOP_CHARACTERS} characters."
            )
        clean_text(sequence, "stop")


def _check_ids(sampling: Sampling, vocab_size: int) -> None:
    for name, ids in (
        ("logit_bias", tuple(sampling.logit_bias)),
        ("stop_token_ids", sampling.stop_token_ids),
    ):
        for token in ids:
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    name, f"{token} is no token of this model: ids run from 0 to {vocab_size - 1}."
                )
    if not all(abs(bias) <= BIAS_LIMIT for bias in sampling.logit_bias.values()):
        raise InvalidRequest("logit_bias", "Each bias lies between -100 and 100.")


def fit(sampling: Sampling, *, prompt_tokens: int, context_length: int) -> Sampling:
    """Sampling whose ``max_tokens`` fits behind the prompt; unset, it takes what is left.

    Raises:
        InvalidRequest: with the numbers.
    """
    left = context_length - prompt_tokens
    wanted = sampling.max_tokens if "max_tokens" in sampling.model_fields_set else max(1, left)
    if wanted > left:
        raise InvalidRequest(
            "max_tokens" if left > 0 else "prompt",
            f"The prompt has {prompt_tokens:,} tokens and up to {wanted:,} more were asked for; "
            f"the model's context holds {context_length:,}. Shorten the prompt, or lower "
            "max_tokens.",
            "context_length_exceeded",
        )
    return sampling.model_copy(update={"max_tokens": wanted})


def check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < SEED_LIMIT:
        raise InvalidRequest("seed", "seed must be between 0 and 2^63 - 1.")
