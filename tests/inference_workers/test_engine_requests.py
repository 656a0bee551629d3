"""What a request may ask for, what it gets, and that a bad one fails alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from inference_workers.contract import Cancelled, Delta, Failed, Finished, Usage
from inference_workers.errors import ConfigError, RequestError
from tests.inference_workers.checkpoints import (
    VOCABULARY,
    engine,
    expected,
    job,
    prompts,
    reference,
    run,
    text,
    tokenizer,
    tokens,
)

PROMPT = (*prompts(2)[1], 65)  # ends with a whole character


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ()}, "empty"),
        ({"prompt": (5, VOCABULARY)}, f"0 to {VOCABULARY - 1}"),
        ({"prompt": (5, -1)}, "token -1"),
        ({"prompt": (5,) * 256}, "at most 255 tokens"),
        ({"prompt": (5,) * 100, "max_tokens": 101}, "needs? room for 200 tokens.* holds 160"),
        ({"logit_bias": {VOCABULARY: 1.0}}, "logit_bias"),
        ({"stop_token_ids": (VOCABULARY,)}, "stop_token_ids"),
        ({"deterministic": True}, "deterministic"),
    ],
)
def test_what_can_never_run_is_refused_with_numbers(change: dict[str, Any], words: str) -> None:
    change = dict(change)
    served = engine("llama", blocks=40)
    with pytest.raises(RequestError, match=words):
        served.add(job("job", change.pop("prompt", PROMPT), **change))
    assert not served.busy
    assert served.capacity() == 32


def test_an_adapter_and_other_weights_are_refused() -> None:
    served = engine("llama", digest="sha256:a")
    with pytest.raises(RequestError, match="adapter"):
        served.add(job("job", PROMPT).model_copy(update={"adapter": "x"}))
    with pytest.raises(RequestError, match="sha256:a") as caught:
        served.add(job("job", PROMPT).model_copy(update={"model_digest": "sha256:b"}))
    assert caught.value.code == "model_changed"


def test_too_little_cache_memory_is_a_setting_error() -> None:
    with pytest.raises(ConfigError, match="kv_memory"):
        engine("llama", blocks=0)


def test_an_answer_ends_at_the_context_with_length() -> None:
    events = run(engine("llama"), [job("job", (5,) * 250, max_tokens=100)])["job"]
    assert len(tokens(events)) == 6
    assert events[-1] == Finished(
        reason="length", usage=Usage(prompt_tokens=250, completion_tokens=6)
    )


def test_each_token_is_one_delta_and_the_last_says_why() -> None:
    events = run(engine("llama"), [job("job", PROMPT, max_tokens=5)])["job"]
    deltas = events[:-1]
    assert [d.first for d in deltas] == [0, 1, 2, 3, 4]
    assert [d.finish for d in deltas] == [None] * 4 + ["length"]
    assert text(events) == tokenizer().decode([*tokens(events)])


def test_a_stop_token_ends_the_choice_and_is_logged_without_text() -> None:
    whole = expected("llama", PROMPT)
    cut = next(i for i in range(3, 12) if whole[i] not in whole[:i])
    events = run(engine("llama"), [job("job", PROMPT, stop_token_ids=(whole[cut],))])["job"]
    assert tokens(events) == whole[: cut + 1]
    assert text(events) == tokenizer().decode([*whole[:cut]])
    assert events[-1].reason == "stop"


def test_the_end_token_ends_unless_it_is_ignored() -> None:
    whole = expected("llama", PROMPT)
    served = engine("llama", eos_token_ids=[whole[0]])
    found = run(served, [job("stops", PROMPT, ignore_eos=False), job("goes on", PROMPT)])
    assert tokens(found["stops"]) == whole[:1]
    assert tokens(found["goes on"]) == whole


def test_min_tokens_forbids_the_end_before() -> None:
    whole = expected("llama", PROMPT)
    served = engine("llama", eos_token_ids=[whole[0]])
    events = run(served, [job("job", PROMPT, ignore_eos=False, min_tokens=3)])["job"]
    assert len(tokens(events)) >= 3
    assert whole[0] not in tokens(events)[:3]


def test_a_stop_string_ends_the_text_before_it() -> None:
    whole = tokenizer().decode([*expected("llama", PROMPT)])
    at = len(whole) // 2
    stop = whole[at : at + 2]
    events = run(engine("llama"), [job("job", PROMPT, stop=(stop,))])["job"]
    assert text(events) == whole[: whole.index(stop)]
    assert events[-1].reason == "stop"


def test_choices_share_the_prompts_blocks_and_differ() -> None:
    prompt = prompts(9, seed=3, longest=80)[4]
    assert len(prompt) > 20
    served = engine("llama")
    peak = 0

    def watch() -> None:
        nonlocal peak
        peak = max(peak, served.stats().blocks_used)

    request = job("job", prompt, n=4, temperature=1.0, max_tokens=3)
    events = run(served, [request], each_step=watch)["job"]
    choices = {tokens(events, choice) for choice in range(4)}
    assert len(choices) == 4
    shared = (len(prompt) - 1) // 4
    assert peak <= shared + 4 * 2
    assert events[-1].usage == Usage(prompt_tokens=len(prompt), completion_tokens=12)
    alone = run(engine("llama", reuse_prefixes=False), [request])["job"]
    assert {tokens(alone, choice) for choice in range(4)} == choices


def test_sampled_tokens_do_not_depend_on_the_batch() -> None:
    chosen = prompts(6)
    jobs = [job(str(i), p, temperature=1.0, top_p=0.9, seed=i) for i, p in enumerate(chosen)]
    together = run(engine("gemma3", token_budget=11), jobs)
    for request in jobs:
        alone = run(engine("gemma3"), [request])[request.id]
        assert tokens(alone) == tokens(together[request.id])
    again = run(engine("gemma3"), [jobs[0].model_copy(update={"seed": 99})])["0"]
    assert tokens(again) != tokens(together["0"])


def test_log_probabilities_are_the_models_own() -> None:
    request = job("job", PROMPT, logprobs=4, prompt_logprobs=2, max_tokens=5, temperature=0.9)
    for budget in (3, 64):
        events = run(engine("llama", token_budget=budget), [request])["job"]
        ids = [*PROMPT, *tokens(events)]
        with torch.inference_mode():
            logits = reference("llama")(torch.tensor([ids])).logits[0]
        truth = logits.log_softmax(-1)
        scores = events[0].prompt_logprobs
        assert [s.token_id for s in scores] == list(PROMPT[1:])
        generated = [delta.logprobs[0] for delta in events[:-1]]
        for position, found in enumerate([*scores, *generated]):
            assert found.logprob == pytest.approx(
                float(truth[position, ids[position + 1]]), abs=1e-4
            )
            best = truth[position].topk(len(found.top))
            assert [t for t, _ in found.top] == best.indices.tolist()
            assert [p for _, p in found.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert {len(s.top) for s in scores} == {2}
        assert {len(s.top) for s in generated} == {4}


@pytest.mark.parametrize("name", ["gemma3", "gpt2"])
def test_no_tokens_but_scores_ends_finished(name: str) -> None:
    events = run(
        engine(name, token_budget=5), [job("job", PROMPT, max_tokens=0, prompt_logprobs=0)]
    )
    delta, finished = events["job"]
    assert delta.token_ids == ()
    assert delta.finish == "length"
    assert len(delta.prompt_logprobs) == len(PROMPT) - 1
    with torch.inference_mode():
        truth = reference(name)(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    for i, found in enumerate(delta.prompt_logprobs):
        assert found.logprob == pytest.approx(float(truth[i, PROMPT[i + 1]]), abs=1e-4)
    assert finished == Finished(reason="length", usage=Usage(prompt_tokens=len(PROMPT)))


def test_nothing_to_do_ends_finished() -> None:
    found = run(
        engine("llama"),
        [job("a", PROMPT, max_tokens=0, n=2), job("b", (5,), max_tokens=0, prompt_logprobs=1)],
    )
    assert [e.finish for e in found["a"][:-1]] == ["length", "length"]
    assert found["b"][0].prompt_logprobs == ()
    assert isinstance(found["a"][-1], Finished)
    assert isinstance(found["b"][-1], Finished)


def test_cancel_says_so_once_and_frees_every_block() -> None:
    served = engine("llama", reuse_prefixes=False)
    served.add(job("a", PROMPT, n=2, temperature=1.0))
    served.add(job("b", PROMPT))
    for _ in range(4):
        served.step()
    served.cancel("a")
    served.cancel("a")
    served.cancel("unknown")
    events = [event for job_id, event in served.step() if job_id == "a"]
    assert len(events) == 1
    assert isinstance(events[0], Cancelled)
    assert events[0].usage.completion_tokens > 0
    rest = run(served, [])
    assert set(rest) == {"b"}
    assert served.stats().blocks_used == 0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_remove_leaves_no_event_and_no_block(steps: int) -> None:
    served = engine("llama", token_budget=6)
    served.add(job("a", PROMPT, n=2))
    for _ in range(steps):
        served.step()
    served.remove("a")
    served.remove("a")
    assert not served.busy
    assert served.step() == []
    assert served.stats().blocks_used == 0


def spoil(monkeypatch: pytest.MonkeyPatch, served: Any, marker: int, fault: Any) -> None:
    """Make the model fail for sequences that begin with ``marker``."""
    forward = served._runner.model.forward

    def spoilt(batch: Any, stores: Any) -> torch.Tensor:
        states = forward(batch, stores)
        bad = [i for i, s in enumerate(batch.segments) if not s.start and s.tokens[0] == marker]
        return fault(batch, states, stores, bad)

    monkeypatch.setattr(served._runner.model, "forward", spoilt)


def test_a_request_whose_logits_are_not_numbers_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marker = 299
    chosen = prompts(8)
    served = engine("gemma3", blocks=60)

    def not_a_number(batch: Any, states: Any, stores: Any, bad: list[int]) -> Any:
        for i in bad:
            segment = batch.segments[i]
            for store in stores:
                store.keys[list(segment.blocks)] = math.nan
                store.values[list(segment.blocks)] = math.nan
            states[sum(len(s.wanted) for s in batch.segments[:i])] = math.nan
        return states

    spoil(monkeypatch, served, marker, not_a_number)
    jobs = [job(str(i), p) for i, p in enumerate(chosen)]
    jobs.insert(3, job("bad", (marker, *chosen[0]), n=2))
    jobs.insert(5, job("bad sampled", (marker, 7), temperature=1.0, logprobs=1))
    found = run(served, jobs)
    monkeypatch.undo()
    for name in ("bad", "bad sampled"):
        (event,) = found[name]
        assert isinstance(event, Failed)
        assert event.code == "not_finite"
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected("gemma3", prompt)


def test_a_request_that_finds_no_memory_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = 299
    chosen = prompts(8)
    served = engine("llama")

    def no_memory(batch: Any, states: Any, stores: Any, bad: list[int]) -> Any:
        if bad:
            raise MemoryError("no room")
        return states

    spoil(monkeypatch, served, marker, no_memory)
    jobs = [job(str(i), p) for i, p in enumerate(chosen)]
    jobs.insert(3, job("bad", (marker, *chosen[0])))
    found = run(served, jobs)
    monkeypatch.undo()
    (event,) = found["bad"]
    assert isinstance(event, Failed)
    assert event.code == "out_of_memory"
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected("llama", prompt)


def test_capacity_counts_choices_and_closes_while_someone_must_wait() -> None:
    served = engine("llama", slots=4, blocks=12, reuse_prefixes=False)
    assert served.capacity() == 4
    served.add(job("a", (5,) * 30, n=3, temperature=1.0))
    assert served.capacity() == 1
    served.add(job("b", (5,) * 30))
    served.step()
    assert served.capacity() == 0
    served.remove("a")
    served.remove("b")
    assert not served.busy
    assert served.capacity() == 4


def test_a_prefix_is_shared_under_one_salt_only() -> None:
    prompt = prompts(9, seed=3, longest=80)[4]
    half = len(prompt) // 2

    def salted(name: str, first: str, second: str) -> Any:
        prefixes = ((first, half), (second, len(prompt) - half))
        return job(name, prompt).model_copy(update={"prefixes": prefixes})

    served = engine("gemma3")
    used = {}
    for name, first, second in [
        ("cold", "app", "team-a"),
        ("same", "app", "team-a"),
        ("other team", "app", "team-b"),
        ("other app", "own", "team-a"),
        ("unsalted", "", ""),
    ]:
        request = salted(name, first, second) if first else job(name, prompt)
        events = run(served, [request])[name]
        used[name] = events[-1].usage.cached_tokens
        assert tokens(events) == expected("gemma3", prompt)
    assert used["cold"] == used["other app"] == used["unsalted"] == 0
    assert used["same"] == (len(prompt) - 1) // 4 * 4
    assert used["other team"] == half // 4 * 4
    assert isinstance(run(served, [job("again", prompt)])["again"][0], Delta)


def test_a_pinned_instruction_is_still_known_after_any_number_of_strangers() -> None:
    shown, *questions = prompts(3, seed=3, longest=80)
    served = engine("gemma3", blocks=60)

    def asks(name: str, question: tuple[int, ...], pinned: int) -> Any:
        prompt = (*shown, *question)
        prefixes = (("app", len(shown)),)
        return job(name, prompt).model_copy(update={"prefixes": prefixes, "pinned": pinned})

    for pinned in (len(shown), 0):
        used = []
        for number, question in enumerate(questions):
            request = asks(f"{pinned}-{number}", question, pinned)
            events = run(served, [request])[request.id]
            assert tokens(events) == expected("gemma3", request.input_ids)
            used.append(events[-1].usage.cached_tokens)
            for stranger, prompt in enumerate(prompts(20, seed=5)):
                run(served, [job(str(stranger), prompt)])
        assert used == [0, len(shown) // 4 * 4 if pinned else 0]
        served = engine("gemma3", blocks=60)


def test_a_prompt_beside_a_stream_goes_by_what_steps_took() -> None:
    served = engine("llama")
    # A machine on which a stream's token takes a second and a prompt's token 0.15.
    served._clock = lambda: served._generated + 0.15 * served._prompted
    served.add(job("early", PROMPT, max_tokens=40))
    for _ in range(5):
        served.step()
    served.add(job("late", (5,) * 200, max_tokens=1))
    parts = []
    while len(parts) < 10:
        before = served.stats().prompt_tokens
        served.step()
        parts.append(served.stats().prompt_tokens - before)
    assert parts == [63] + [7] * 9  # 1 + 7 * 0.15 s is at most 2.1 s
