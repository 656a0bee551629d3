"""Kernels and layouts: whichever is chosen, the numbers are the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from inference_workers.layers import linear
from inference_workers.layers.attention import LayerShape, allocate, attend
from inference_workers.layers.batch import Segment, build
from inference_workers.layers.linear import Linear
from inference_workers.layers.norm import MANY_ROWS, HeadsNorm, RMSNorm
from inference_workers.layers.rotary import Rotary, frequencies
from inference_workers.models import registry
from tests.inference_workers.checkpoints import LEAN, prompts, reference


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("biased", [False, True])
def test_the_packed_product_is_the_plain_one(rows: int, biased: bool) -> None:
    torch.manual_seed(rows)
    weight, x = torch.randn(48, 32), torch.randn(rows, 32)
    bias = torch.randn(48) if biased else None
    packed = Linear(weight.bfloat16(), None if bias is None else bias.bfloat16())
    truth = F.linear(x, weight, bias)
    assert torch.allclose(packed.forward(x.bfloat16()).float(), truth, rtol=0.03, atol=0.3)
    assert torch.equal(Linear(weight, bias).forward(x), truth)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_served_in_a_type_that_the_processor_computes(
    stored: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_BF16_OK", False)
    assert linear.compute_dtype(stored, torch.device("cpu")) == torch.float32
    assert linear.compute_dtype(stored, torch.device("cuda")) == stored
    monkeypatch.setattr(linear, "_BF16_OK", True)
    assert linear.compute_dtype(torch.bfloat16, torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_and_many_rows_are_normalised_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(MANY_ROWS + 5, 64).to(dtype)
    scale = torch.randn(64).to(dtype)
    norm = RMSNorm(scale, 1e-6, offset=1.0)
    many = norm.forward(x).float()
    few = torch.cat([norm.forward(row[None]) for row in x]).float()
    wide = x.float()
    truth = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + scale.float())
    tolerance = 1e-6 if dtype == torch.float32 else 0.02
    assert torch.allclose(many, truth, rtol=tolerance, atol=1e-5)
    assert torch.allclose(few, truth, rtol=tolerance, atol=1e-5)


def test_query_and_key_norms_in_one_call_are_two_norms() -> None:
    torch.manual_seed(0)
    x, query, key = torch.randn(3, 6, 16), torch.randn(16), torch.randn(16)
    both = HeadsNorm(query, key, (4, 2), 1e-6, offset=1.0).forward(x)
    assert torch.allclose(both[:, :4], RMSNorm(query, 1e-6, offset=1.0).forward(x[:, :4]))
    assert torch.allclose(both[:, 4:], RMSNorm(key, 1e-6, offset=1.0).forward(x[:, 4:]))


def test_rotary_tables_grow_to_any_position() -> None:
    rotary = Rotary(frequencies({"rope_theta": 1e4}, 8), torch.float32, torch.device("cpu"))
    cos, sin = rotary.at(torch.tensor([0, 5000]), 5000).rows()
    angle = 5000.0
    assert cos[0, 0].tolist() == [1.0] * 8
    assert float(cos[1, 0, 0]) == pytest.approx(float(torch.tensor(angle).cos()), abs=1e-5)
    assert float(sin[1, 0, 4]) == pytest.approx(float(torch.tensor(angle).sin()), abs=1e-5)


SHAPES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25)), min_size=1, max_size=9)


@given(shapes=SHAPES, window=st.sampled_from([None, 1, 5, 16]), each=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_attention_over_blocks_is_attention_over_each_sequence_alone(
    shapes: list[tuple[int, int]], window: int | None, each: int
) -> None:
    torch.manual_seed(len(shapes))
    size, heads, cpu = 4, 2, torch.device("cpu")
    (store,) = allocate(
        [LayerShape(heads, 8, 8)], blocks=400, block_size=size, dtype=torch.float32, device=cpu
    )
    free = torch.randperm(400).add(1).tolist()
    segments, pasts = [], []
    for past, count in shapes:
        blocks = [free.pop() for _ in range(-(-(past + count) // size))]
        segments.append(Segment([1] * count, past, blocks, list(range(count))))
        keys, values = torch.randn(2, past + count, heads, 8)
        slots = torch.tensor([blocks[p // size] * size + p % size for p in range(past + count)])
        store.write(slots, keys, values)
        pasts.append((keys, values))
    batch = build(
        segments, block_size=size, windows=(None, window), dtype=torch.float32, device=cpu
    )
    rows = sum(count for _, count in shapes)
    queries = torch.randn(rows, heads * each, 8)
    found = attend(queries, store, batch, window=window, scale=0.3)[batch.wanted]
    in_order = queries[batch.wanted]
    at = 0
    for (past, count), (keys, values) in zip(shapes, pasts, strict=True):
        own = in_order[at : at + count].transpose(0, 1)
        positions = torch.arange(past, past + count)[:, None]
        seen = torch.arange(past + count)[None, :]
        mask = seen <= positions
        if window is not None:
            mask &= seen > positions - window
        truth = F.scaled_dot_product_attention(
            own,
            keys.transpose(0, 1).repeat_interleave(each, 0),
            values.transpose(0, 1).repeat_interleave(each, 0),
            attn_mask=mask,
            scale=0.3,
        )
        flat = truth.transpose(0, 1).reshape(count, -1)
        assert torch.allclose(found[at : at + count], flat, atol=1e-5)
        at += count


@pytest.mark.parametrize("name", LEAN)
def test_bfloat16_is_close_to_float32(name: str) -> None:
    module = reference(name)
    served = registry.build(module.config, module.state_dict(), dtype=torch.bfloat16)
    prompt = prompts(9, seed=3, longest=80)[4]
    shape = served.shape
    stores = allocate(shape.layers, blocks=40, block_size=4, dtype=shape.dtype, device=shape.device)
    segment = Segment(prompt, 0, list(range(1, 40)), list(range(len(prompt))))
    batch = build(
        [segment], block_size=4, windows=shape.windows, dtype=shape.dtype, device=shape.device
    )
    with torch.inference_mode():
        logits = served.logits(served.forward(batch, stores)).float()
        truth = module(torch.tensor([prompt])).logits[0]
    error = (logits - truth).pow(2).mean().sqrt() / truth.pow(2).mean().sqrt()
    assert float(error) < 0.08
