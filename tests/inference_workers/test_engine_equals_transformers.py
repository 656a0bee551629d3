"""Greedy float32 tokens equal ``transformers.generate``, however requests are batched."""

from __future__ import annotations

import pytest

from tests.inference_workers.checkpoints import (
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


@pytest.mark.parametrize("name", LEAN)
def test_lean_models_are_served_by_their_own_class(name: str) -> None:
    assert type(model(name)).__name__ in ("Llama", "Gemma3")


@pytest.mark.parametrize("name", ["gemma3", "bloom", "mistral-windowed"])
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


@pytest.mark.parametrize("name", ["llama", "gemma3", "opt"])
def test_preempted_requests_are_computed_again_exactly(name: str) -> None:
    chosen = prompts(6)
    served = engine(name, blocks=20, reuse_prefixes=name != "llama")
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
