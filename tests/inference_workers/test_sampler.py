"""The sampler's laws, against a straightforward reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_workers.contract import Sampling
from inference_workers.engine.counter import uniform
from inference_workers.engine.sampler import Row, _sum, choose, edit, restrict, score
from inference_workers.layers.linear import Head, greedy

LOGITS = st.lists(st.floats(-8, 8, width=32).map(lambda x: round(x, 2)), min_size=2, max_size=40)


def row(index: int = 0, *, seed: int = 1, choice: int = 0, **more: Any) -> Row:
    fields = {key: more.pop(key) for key in ("prompt", "output", "ends") if key in more}
    return Row(Sampling(**{"temperature": 1.0, **more}), seed, choice, index, **fields)


def reference(logits: list[float], k: int, p: float, min_p: float) -> list[float]:
    """Top-k, then top-p of the rest, then min-p; one token after another, ties kept."""
    weights = [math.exp(x - max(logits)) for x in logits]
    if 0 < k < len(weights):
        cut = sorted(weights, reverse=True)[k - 1]
        weights = [w if w >= cut else 0.0 for w in weights]
    if p < 1:
        ranked = sorted(weights, reverse=True)
        goal, total = p * sum(weights), 0.0
        for cut in ranked:
            total += cut
            if total >= goal:
                break
        weights = [w if w >= cut else 0.0 for w in weights]
    best = max(weights)
    return [w if w >= min_p * best else 0.0 for w in weights]


@given(
    rows=st.lists(LOGITS, min_size=1, max_size=4),
    k=st.integers(0, 12),
    p=st.floats(0.05, 1.0).map(lambda x: round(x, 3)),
    min_p=st.floats(0, 0.9).map(lambda x: round(x, 3)),
)
@settings(max_examples=300, deadline=None)
def test_top_k_top_p_and_min_p_keep_what_their_definition_keeps(
    rows: list[list[float]], k: int, p: float, min_p: float
) -> None:
    width = max(map(len, rows))
    padded = [[*r, *[-50.0] * (width - len(r))] for r in rows]
    samplings = [Sampling(top_k=k, top_p=p, min_p=min_p), Sampling()] * len(padded)
    logits = torch.tensor(padded, dtype=torch.float64).repeat_interleave(2, 0)
    found = restrict(logits, samplings)
    for i, values in enumerate(padded):
        truth = reference(values, k, p, min_p)
        near_a_cut = [abs(a - b) < 1e-9 for a, b in zip(found[2 * i].tolist(), truth, strict=True)]
        assert all(near_a_cut)
        assert (found[2 * i + 1] > 0).all()


def test_a_nucleus_wider_than_the_first_look_is_still_exact() -> None:
    logits = torch.zeros(1, 5000, dtype=torch.float64) - torch.arange(5000) * 1e-4
    kept = int((restrict(logits, [Sampling(top_p=0.7)]) > 0).sum())
    weights = torch.exp(logits[0]).tolist()
    total, count = 0.0, 0
    while total < 0.7 * sum(weights):
        total += weights[count]
        count += 1
    assert kept == count


@pytest.mark.parametrize("width", [300, 1024, 5000])
@pytest.mark.parametrize("spread", [0.5, 6.0])
def test_drawing_from_candidates_is_drawing_from_everything(width: int, spread: float) -> None:
    torch.manual_seed(width)
    logits = (torch.randn(40, width) * spread).round(decimals=1)  # with ties
    kinds: list[dict[str, Any]] = [
        {"top_k": 1},
        {"top_k": 50, "top_p": 0.8},
        {"top_p": 0.6},
        {"top_p": 0.999},
        {"min_p": 0.3},
        {"top_k": 400, "min_p": 0.01},
        {},
    ]
    rows = [row(i, temperature=0.7 + 0.1 * (i % 3), **kinds[i % 7]) for i in range(40)]
    found = [c.token for c in choose(logits.clone(), rows)]
    for i, one in enumerate(rows):
        scaled = logits[i : i + 1].double() / one.sampling.temperature
        running = restrict(scaled, [one.sampling])[0].cumsum(0)
        draw = uniform(one.seed, one.choice, one.index) * float(running[-1])
        assert found[i] == int((running <= draw).sum()), one.sampling


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_probabilities(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5])
    draws = 20000
    rows = [row(i, seed=3, temperature=temperature) for i in range(draws)]
    found = Counter(c.token for c in choose(logits.expand(draws, 5).clone(), rows))
    truth = torch.softmax(logits / temperature, -1).tolist()
    for token, probability in enumerate(truth):
        deviation = math.sqrt(probability * (1 - probability) / draws)
        assert abs(found[token] / draws - probability) < 4.5 * deviation


def test_the_counter_gives_even_independent_numbers() -> None:
    numbers = [uniform(s, c, i) for s in range(20) for c in range(5) for i in range(200)]
    assert len(set(numbers)) == len(numbers)
    assert 0 < min(numbers) < max(numbers) < 1
    cells = Counter(int(x * 20) for x in numbers)
    assert all(abs(count - 1000) < 150 for count in cells.values())
    covariance = sum((a - 0.5) * (b - 0.5) for a, b in pairwise(numbers)) / len(numbers)
    assert abs(covariance) < 0.003


@given(seed=st.integers(0, 2**63 - 1), choice=st.integers(0, 15), index=st.integers(0, 10**6))
def test_any_counter_is_inside_the_interval(seed: int, choice: int, index: int) -> None:
    assert 0 < uniform(seed, choice, index) < 1


def test_a_draw_depends_on_its_own_row_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 500)
    kinds: list[dict[str, Any]] = [
        {"top_p": 0.8},
        {"top_k": 7},
        {"temperature": 0.0},
        {"min_p": 0.2, "repetition_penalty": 1.5, "prompt": (1, 2, 3)},
    ]
    rows = [row(i, seed=i, logprobs=i % 3, **kinds[i % 4]) for i in range(9)]
    together = choose(logits.clone(), rows)
    for i in range(9):
        assert choose(logits[i : i + 1].clone(), [rows[i]])[0].token == together[i].token


def test_a_row_that_is_not_a_number_gives_no_token_and_spoils_no_other() -> None:
    logits = torch.randn(4, 50)
    clean = choose(logits.clone(), [row(i) for i in range(4)])
    for value in (math.nan, math.inf, -math.inf):
        spoilt = logits.clone()
        spoilt[2] = value
        found = choose(spoilt, [row(i, logprobs=1) for i in range(4)])
        assert found[2].token is None
        assert [found[i].token for i in (0, 1, 3)] == [clean[i].token for i in (0, 1, 3)]


def test_penalties_and_bias_follow_their_definitions() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5, 3.0]])
    rows = [
        row(
            5,
            prompt=(0, 1),
            output=(2, 2, 4),
            repetition_penalty=2.0,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            logit_bias={3: 4.0, 4: -1.0},
        )
    ]
    edit(logits, rows)
    truth = [2.0 / 2, -2.0 * 2, 1.0 / 2 - 0.5 - 2 * 0.25, 0.5 + 4, 3.0 / 2 - 0.5 - 0.25 - 1]
    assert logits[0].tolist() == pytest.approx(truth)


def test_ends_are_impossible_before_min_tokens_only() -> None:
    for index, banned in ((2, True), (3, False)):
        logits = torch.tensor([[0.0, 5.0, 1.0]])
        found = choose(logits, [row(index, min_tokens=3, ends=(1,), temperature=0.0)])
        assert (found[0].token == 2) == banned


def test_a_tiny_temperature_is_greedy_and_never_overflows() -> None:
    logits = torch.randn(8, 100) * 50
    rows = [row(i, temperature=1e-12) for i in range(8)]
    assert [c.token for c in choose(logits.clone(), rows)] == logits.argmax(-1).tolist()


def test_scores_are_the_logits_log_softmax_with_the_asked_alternatives() -> None:
    logits = torch.randn(3, 30)
    found = score(logits, [4, 5, 6], [0, 2, 40])
    truth = logits.log_softmax(-1)
    for i, entry in enumerate(found):
        assert entry.logprob == pytest.approx(float(truth[i, 4 + i]), abs=1e-5)
        assert len(entry.top) == (0, 2, 30)[i]
        assert list(entry.top) == sorted(entry.top, key=lambda pair: -pair[1])


@pytest.mark.parametrize("width", [512, 700, 1024, 512 * 9])
def test_the_fast_greedy_choice_is_the_first_largest(width: int) -> None:
    torch.manual_seed(width)
    logits = torch.randint(0, 50, (6, width)).float()
    value, index = greedy(logits)
    assert value.tolist() == logits.amax(-1).tolist()
    assert index.tolist() == [r.index(max(r)) for r in logits.tolist()]
    logits[3, width // 2] = math.nan
    assert greedy(logits)[0].isnan().tolist() == [False, False, False, True, False, False]


def test_a_head_in_parts_chooses_as_one_product_would() -> None:
    torch.manual_seed(2)
    weight = torch.randn(2600, 32).bfloat16()
    states = torch.randn(5, 32).bfloat16()
    head = Head(weight, shared=True)
    logits = head.forward(states)
    assert torch.allclose(logits.float(), (states.float() @ weight.float().T), rtol=0.02, atol=0.2)
    value, index = head.greedy(states)
    assert value.tolist() == logits.amax(-1).tolist()
    assert index.tolist() == [r.index(max(r)) for r in logits.tolist()]
    states[1] = math.nan
    assert head.greedy(states)[0].isnan().tolist() == [False, True, False, False, False]


@pytest.fixture
def four_threads() -> Iterator[None]:
    """torch sums a long row that is alone in pieces, one for each thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def test_a_long_rows_sum_is_the_same_alone_and_beside_others(four_threads: None) -> None:
    rows = torch.randn(40, 1 << 16, generator=torch.Generator().manual_seed(1)).exp()
    alone = torch.cat([_sum(rows[i : i + 1]) for i in range(40)])
    assert torch.equal(alone, _sum(rows))
    assert torch.allclose(alone, rows.double().sum(-1, keepdim=True).float(), rtol=1e-5)


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.7}, {"temperature": 2.0, "min_p": 0.01}],
)
def test_so_are_its_draw_and_its_log_probabilities(
    sampling: dict[str, Any], four_threads: None
) -> None:
    logits = torch.randn(5, 1 << 17, generator=torch.Generator().manual_seed(1)) * 3
    chosen = Sampling(**sampling, logprobs=2)
    rows = [Row(sampling=chosen, seed=i, choice=0, index=i) for i in range(5)]
    together = choose(logits.clone(), rows)
    assert [choose(logits[i : i + 1].clone(), rows[i : i + 1])[0] for i in range(5)] == together
    truth = logits.double().log_softmax(-1)
    for number, found in enumerate(together):
        assert found.logprob is not None
        expected = float(truth[number, found.logprob.token_id])
        assert found.logprob.logprob == pytest.approx(expected, abs=1e-4)
