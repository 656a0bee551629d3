"""Kernels and layouts: whichever is chosen, the numbers are the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

from inference_workers.layers import linear
from inference_workers.layers.attention import LayerShape, alibi_slopes, allocate, attend
from inference_workers.layers.batch import Segment, build
from inference_workers.layers.linear import Linear
from inference_workers.layers.norm import MANY_ROWS, HeadsNorm, RMSNorm
from inference_workers.layers.rotary import Rotary, attention_factor, frequencies
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


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0},
        {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0},
        {"rope_type": "yarn", "factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0},
        {"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.5, "truncate": False},
    ],
)
def test_scaled_rotary_frequencies_are_transformers_own(scaling: dict[str, Any]) -> None:
    trained = {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    parameters = {**(trained if scaling["rope_type"] in ("llama3", "yarn") else {}), **scaling}
    parameters["rope_theta"] = 500000.0
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, rope_parameters=parameters
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"))
    assert torch.allclose(frequencies(config.rope_parameters, 128), theirs, rtol=1e-6)
    assert attention_factor(config.rope_parameters) == pytest.approx(factor)


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


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 32, 112])
def test_the_slopes_of_any_number_of_heads_are_transformers_own(heads: int) -> None:
    assert torch.allclose(alibi_slopes(heads), _get_alibi_slopes(heads, torch.device("cpu")))


@given(shapes=SHAPES)
@settings(max_examples=30, deadline=None)
def test_distance_is_penalised_head_by_head_however_sequences_are_grouped(
    shapes: list[tuple[int, int]],
) -> None:
    torch.manual_seed(len(shapes))
    heads, cpu = 3, torch.device("cpu")
    (store,) = allocate(
        [LayerShape(heads, 8, 8)], blocks=400, block_size=4, dtype=torch.float32, device=cpu
    )
    slopes, at = alibi_slopes(heads), 1
    segments, alone = [], []
    for past, count in shapes:
        blocks = list(range(at, at + -(-(past + count) // 4)))
        at += len(blocks)
        segments.append(Segment([1] * count, past, blocks, list(range(count))))
        keys, values = torch.randn(2, past + count, heads, 8)
        first = blocks[0] * 4
        store.write(torch.arange(first, first + past + count), keys, values)
        alone.append((keys, values))
    batch = build(segments, block_size=4, windows=(None,), dtype=torch.float32, device=cpu)
    queries = torch.randn(sum(count for _, count in shapes), heads, 8)
    found = attend(queries, store, batch, window=None, scale=0.3, slopes=slopes)[batch.wanted]
    rows = iter(zip(queries[batch.wanted], found, strict=True))
    for (past, count), (keys, values) in zip(shapes, alone, strict=True):
        for position in range(past, past + count):
            query, answer = next(rows)
            seen = torch.arange(position + 1)
            scores = torch.einsum("hd,khd->hk", query, keys[seen]) * 0.3
            weights = (scores - slopes[:, None] * (position - seen)).softmax(-1)
            truth = torch.einsum("hk,khd->hd", weights, values[seen])
            assert torch.allclose(answer, truth.flatten(), atol=1e-5)


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
        theirs = copy.deepcopy(module).bfloat16()(torch.tensor([prompt])).logits[0].float()
    # How much rounding is blown up is the checkpoint's affair: transformers' own is the measure.
    assert float((logits - truth).norm()) < 1.2 * float((theirs - truth).norm())
    assert float((logits - truth).norm() / truth.norm()) < 0.2
