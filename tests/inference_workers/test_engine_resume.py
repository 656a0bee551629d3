"""A job taken over after any token goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from inference_workers.contract import Delta, Finished, Job
from inference_workers.errors import RequestError
from tests.inference_workers.checkpoints import LEAN, engine, job, prompts, run, text, tokens

NAMES = [*LEAN, "gpt2"]


def resumed(name: str, request: Job, log: Sequence[Delta], **settings: Any) -> list[Any]:
    """The rest of a job whose log has ``log``, run beside a stranger."""
    served = engine(name, token_budget=7, **settings)
    served.add(job("stranger", prompts(3)[2], max_tokens=5))
    served.step()
    served.add(request, log)
    return run(served, [])[request.id]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "top_p": 0.9, "top_k": 40}])
def test_after_every_token_the_rest_is_what_it_would_have_been(
    name: str, sampling: dict[str, Any]
) -> None:
    request = job("job", prompts(2)[1], seed=5, stop=("\x00\x00",), max_tokens=10, **sampling)
    whole = run(engine(name), [request])["job"]
    deltas = [event for event in whole if isinstance(event, Delta)]
    assert len(deltas) > 3
    for cut in range(len(deltas) + 1):
        rest = resumed(name, request, deltas[:cut])
        assert rest == whole[cut:], f"after {cut} tokens"


def test_penalties_and_log_probabilities_go_on_too() -> None:
    request = job(
        "job",
        prompts(2)[1],
        temperature=0.7,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.4,
        min_tokens=4,
        logprobs=3,
    )
    whole = run(engine("llama"), [request])["job"]
    deltas = [event for event in whole if isinstance(event, Delta)]
    for cut in range(len(deltas)):
        rest = resumed("llama", request, deltas[:cut])
        assert tokens_of(rest) == tokens_of(whole[cut:])
        for old, new in zip(whole[cut:-1], rest, strict=False):
            assert new.logprobs[0].logprob == pytest.approx(old.logprobs[0].logprob, abs=1e-4)


def tokens_of(events: Sequence[Any]) -> list[int]:
    return [t for e in events if isinstance(e, Delta) for t in e.token_ids]


def test_choices_resume_separately_and_ended_ones_stay_ended() -> None:
    request = job("job", prompts(2)[0], n=3, temperature=1.0, max_tokens=6, seed=9)
    whole = run(engine("llama"), [request])["job"]
    deltas = [event for event in whole if isinstance(event, Delta)]
    for cut in range(0, len(deltas) + 1, 2):
        rest = [*deltas[:cut], *resumed("llama", request, deltas[:cut])]
        for choice in range(3):
            assert tokens(rest, choice) == tokens(whole, choice)
            assert text(rest, choice) == text(whole, choice)
        assert isinstance(rest[-1], Finished)
        assert rest[-1].usage.completion_tokens == 18


def test_a_prompts_scores_are_emitted_once_over_all_epochs() -> None:
    request = job("job", prompts(2)[1], prompt_logprobs=2, max_tokens=4)
    whole = run(engine("llama"), [request])["job"]
    deltas = [event for event in whole if isinstance(event, Delta)]
    assert [d.prompt_logprobs is not None for d in deltas] == [True, False, False, False]
    rest = resumed("llama", request, deltas[:1])
    assert all(event.prompt_logprobs is None for event in rest if isinstance(event, Delta))
    assert tokens_of(rest) == tokens_of(whole[1:])


def test_a_log_with_a_gap_is_refused_and_nothing_is_kept() -> None:
    request = job("job", prompts(2)[0])
    served = engine("llama")
    with pytest.raises(RequestError, match="entries are missing"):
        served.add(request, [Delta(first=1, token_ids=(3,))])
    assert not served.busy
