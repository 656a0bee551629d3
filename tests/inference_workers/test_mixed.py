"""Bits go where they are needed, until a model strays by no more than it may."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from inference_workers.layers.linear import Linear
from inference_workers.layers.packing import Q4M, Q5, Q8, Kind
from inference_workers.models import calibration
from inference_workers.models.manifest import Manifest
from inference_workers.models.mixed import LADDER, LOSS, Candidate, choose, settle
from tests.inference_workers.checkpoints import VOCABULARY, model, tokenizer


def candidate(number: int, error: float, rows: int = 64) -> Candidate:
    errors = {Q4M: error, Q5: error / 3, Q8: error / 200}
    return Candidate(number, f"m{number}", rows, 64, errors)


CANDIDATES = [candidate(i, 0.001 * 2**i) for i in range(8)]


def total(kinds: Mapping[str, Kind]) -> float:
    """Straying as if it were the errors' sum, scaled so that 4 bits lose ten times too much."""
    found = sum(item.errors[kinds[item.name]] for item in CANDIDATES)
    return 10 * LOSS * found / sum(item.errors[Q4M] for item in CANDIDATES)


def weight(kinds: Mapping[str, Kind]) -> int:
    return sum(item.bits(kinds[item.name]) for item in CANDIDATES)


def test_sensitive_matrices_get_more_bits() -> None:
    kinds, strays = settle(CANDIDATES, total)
    assert strays == total(kinds) <= LOSS
    bits = [kinds[item.name].bits for item in CANDIDATES]
    assert bits == sorted(bits)
    assert set(bits) == {4, 5, 8}


def test_a_small_matrix_gets_more_bits_than_a_large_one_that_errs_alike() -> None:
    small, large = candidate(0, 0.01, rows=16), candidate(1, 0.01, rows=4096)
    price = (small.errors[Q4M] - small.errors[Q5]) / (small.bits(Q5) - small.bits(Q4M)) * 0.9
    assert choose([small, large], price) == {"m0": Q5, "m1": Q4M}


def test_no_lighter_choice_than_a_neighbouring_one_would_do() -> None:
    kinds, _ = settle(CANDIDATES, total)
    for item in CANDIDATES:
        for kind in LADDER[: LADDER.index(kinds[item.name])]:
            assert total(kinds | {item.name: kind}) > LOSS * 0.7
    assert weight(kinds) < weight(dict.fromkeys(kinds, Q8)) * 0.9


def test_four_bits_stay_where_they_are_enough_and_eight_where_nothing_is() -> None:
    kinds, _ = settle(CANDIDATES, lambda kinds: 0.9 * LOSS)
    assert set(kinds.values()) == {Q4M}
    kinds, strays = settle(CANDIDATES, lambda kinds: 2 * LOSS)
    assert set(kinds.values()) == {Q8}
    assert strays == 2 * LOSS


def manifest() -> Manifest:
    return Manifest(
        id="small", source="", digest="sha256:" + "0" * 64, format="fp32", family="llama",
        architecture="", parameters=0, context_length=256, vocab_size=VOCABULARY, bytes=0,
        prepared_at=0, bos_token_id=256, add_bos=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> calibration.Texts:
    return calibration.write_texts(model("llama"), tokenizer(), manifest())


def test_a_model_writes_the_same_texts_each_time_and_keeps_some_unseen(
    texts: calibration.Texts,
) -> None:
    assert calibration.write_texts(model("llama"), tokenizer(), manifest()) == texts
    written = [*texts.fitted, *(text for held in texts.held.values() for text in held)]
    assert {len(text) for text in written} == {calibration.LENGTH}
    assert all(text[0] == 256 and max(text) < VOCABULARY for text in written)
    assert len({tuple(text) for text in written}) == len(written)
    assert set(texts.held) == {"en", "zh"}
    assert all(texts.held.values())


def test_tokens_are_drawn_as_often_as_they_are_likely_and_never_without_a_chance() -> None:
    logits = torch.full((4000, 1300), float("-inf"))
    logits[:, [3, 600, 1299]] = torch.tensor([0.5, 0.3, 0.2]).log()
    drawn = calibration._drawn(logits, torch.Generator().manual_seed(1))
    counts = torch.bincount(torch.tensor(drawn), minlength=1300) / 4000
    assert counts[[3, 600, 1299]].tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert float(counts.sum()) == pytest.approx(1.0)
    assert int((counts > 0).sum()) == 3


def test_a_model_does_not_stray_from_itself_and_another_does(texts: calibration.Texts) -> None:
    yardstick = calibration.Yardstick(model("llama"), texts)
    assert yardstick.strays(model("llama")) == pytest.approx(0.0, abs=1e-6)
    assert yardstick.strays(model("mistral")) > 0.5


def test_each_projection_is_seen_once_with_what_those_before_it_make(
    texts: calibration.Texts,
) -> None:
    seen: list[Tensor] = []

    def halve(linear: Linear, inputs: Tensor) -> Linear:
        seen.append(inputs)
        return linear if len(seen) > 1 else Linear(torch.zeros(linear.outputs, linear.inputs))

    served = model.__wrapped__("llama")  # one of our own: it is changed
    layers = sum(1 for _ in calibration.projections(served))
    calibration.watch(served, texts.fitted[:2], halve)
    assert len(seen) == layers == 4 * 3
    # The first product's zeros arrive at the second: no values, nothing attended to.
    assert not seen[1].any()
    assert seen[2].any()
    assert all(len(rows) == 2 * calibration.LENGTH for rows in seen)
    assert sum(1 for _ in calibration.projections(served)) == layers
