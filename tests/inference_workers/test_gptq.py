"""A matrix fitted to its inputs errs less where it matters than one that is only rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from inference_workers.layers.gptq import Inputs, NotFinite
from inference_workers.layers.packing import Q4M, Q5, Kind, unpack
from inference_workers.layers.quantize import quantized

ROWS, COLUMNS = 48, 192


def correlated(seed: int = 0, count: int = 1200) -> Tensor:
    """Inputs that go together: few causes behind many numbers, as in a model."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(COLUMNS // 4, COLUMNS, generator=draw)
    noise = torch.randn(count, COLUMNS, generator=draw)
    return torch.randn(count, COLUMNS // 4, generator=draw) @ mix + noise


def matrix(seed: int = 1) -> Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def unpacked(kind: Kind, data: np.ndarray) -> Tensor:
    return torch.from_numpy(unpack(kind, data, ROWS, COLUMNS))


def test_it_errs_half_as_much_as_rounding_on_inputs_that_it_has_not_seen() -> None:
    values, unseen = matrix(), Inputs(correlated()[600:])
    fitted = Inputs(correlated()[:600]).fitted(values, Q4M)
    kind, data = quantized(values.numpy(), 4)
    assert kind is Q4M
    here = unseen.error(values, unpacked(Q4M, fitted.data))
    assert here < 0.5 * unseen.error(values, unpacked(kind, data))


def test_five_bits_err_less_than_four_and_say_by_how_much() -> None:
    values, inputs = matrix(), Inputs(correlated())
    four, five = inputs.fitted(values, Q4M), inputs.fitted(values, Q5)
    assert five.error < 0.5 * four.error
    for found in (four, five):
        truth = inputs.error(values, unpacked(found.kind, found.data))
        assert found.error == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("kind", [Q4M, Q5])
def test_what_was_rounded_before_comes_back_as_it_was(kind: Kind) -> None:
    inputs = Inputs(correlated())
    once = inputs.fitted(matrix(), kind)
    again = inputs.fitted(unpacked(kind, once.data), kind)
    assert again.error < 1e-3 * once.error


def test_the_same_input_gives_the_same_bytes() -> None:
    first, second = (Inputs(correlated()).fitted(matrix(), Q4M).data for _ in range(2))
    assert np.array_equal(first, second)


def test_inputs_that_are_never_there_do_no_harm() -> None:
    rows = correlated()
    rows[:, 7] = 0
    values = matrix()
    values[:, 32:64] = 0
    found = Inputs(rows).fitted(values, Q5)
    assert found.error < 0.01
    assert torch.isfinite(unpacked(Q5, found.data)).all()
    assert Inputs(torch.zeros(4, COLUMNS)).fitted(values, Q4M).error == 0


def test_numbers_that_are_not_finite_are_refused() -> None:
    rows, values = correlated(), matrix()
    with pytest.raises(NotFinite, match="values"):
        Inputs(rows).fitted(values.index_fill(1, torch.tensor([3]), float("inf")), Q4M)
    rows[5, 5] = float("nan")
    with pytest.raises(NotFinite, match="inputs"):
        Inputs(rows)
