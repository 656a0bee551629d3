"""Greedy float32 tokens equal ``transformers.generate``, however requests are batched."""

from __future__ import annotations

import pytest

from tests.inference_workers.checkpoints import (
    GENERIC,
    LEAN,
    NAMES,
    engine,
    expected,
    job,
    model,
    prompts,
    run,
    tokens,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [5, 64])
def test_batched_equals_alone_equals_transformers(name: str, budget: int) -> None:
    chosen = prompts(7)
    found = run(engine(name, token_budget=budget), [job(str(i), p) for i, p in enumerate(chosen)])
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected(name, prompt), f"prompt {i}"


@pytest.mark.parametrize("name", NAMES)
def test_each_architecture_is_served_by_its_own_class_or_by_the_generic_one(name: str) -> None:
    family = name.partition("-")[0].capitalize()
    assert type(model(name)).__name__ == ("Generic" if name in GENERIC else family)


@pytest.mark.parametrize("name", NAMES)
def test_random_checkpoints_answer_with_varied_tokens(name: str) -> None:
    answers = [expected(name, prompt) for prompt in prompts(7)]
    assert len(set(answers)) == len(answers)
    assert len({token for answer in answers for token in answer}) >= 20


@pytest.mark.parametrize(
    "name", ["gemma3", "opt-350m", "bloom-6-heads", "mistral-windowed", "qwen3", "mpt"]
)
def test_requests_that_join_and_leave_in_mid_flight_disturb_nobody(name: str) -> None:
    chosen = prompts(8)
    served = engine(name, token_budget=9, slots=4)
    lengths = [3 + 2 * (i % 5) for i in range(len(chosen))]
    waiting = [job(str(i), p, max_tokens=lengths[i]) for i, p in enumerate(chosen)]
    found: dict[str, list[object]] = {}
    served.add(waiting.pop())
    while served.busy or waiting:
        for job_id, event in served.step():
            found.setdefault(job_id, []).append(event)
        served.check()
        if waiting and served.stats().steps % 2:
            served.add(waiting.pop())
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected(name, prompt)[: lengths[i]]


@pytest.mark.parametrize("name", [*LEAN, "gpt2"])
@pytest.mark.parametrize("reuse", [True, False])
def test_preempted_requests_are_computed_again_exactly(name: str, reuse: bool) -> None:
    chosen = prompts(6)
    served = engine(name, blocks=20, reuse_prefixes=reuse)
    found = run(served, [job(str(i), p) for i, p in enumerate(chosen)])
    assert served._scheduler.preemptions > 0
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected(name, prompt)


@pytest.mark.parametrize("budget", [1, 3, 16, 17])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_any_chunking_and_block_size_gives_the_same_tokens(budget: int, block_size: int) -> None:
    chosen = prompts(3)
    served = engine("gemma3", token_budget=budget, block_size=block_size, blocks=300)
    found = run(served, [job(str(i), p) for i, p in enumerate(chosen)])
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected("gemma3", prompt)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reuse", [True, False])
def test_a_shared_prefix_changes_no_token(name: str, reuse: bool) -> None:
    start = prompts(9, seed=3)[4][:19]
    chosen = [start + tail for tail in prompts(4, seed=11, longest=9)]
    served = engine(name, token_budget=7, reuse_prefixes=reuse)
    # Prefixes of one salt are shared: one job ends before the others start.
    salted = [
        job(str(i), prompt).model_copy(update={"prefixes": (("shared", len(start)),)})
        for i, prompt in enumerate(chosen)
    ]
    found = run(served, salted[:1]) | run(served, salted[1:])
    assert (served.stats().prefix_hits > 0) == reuse
    for i, prompt in enumerate(chosen):
        assert tokens(found[str(i)]) == expected(name, prompt), f"prompt {i}"
