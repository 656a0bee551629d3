"""The kernels compute what torch does; a row's result is its own, whatever is beside it."""

from __future__ import annotations

import ctypes
import math
import threading

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.engine.request import Request
from inference_workers.engine.runner import Runner, Work
from inference_workers.layers import activation, attention, heads, linear, norm
from inference_workers.layers.activation import Gate, gated
from inference_workers.layers.attention import KeyValues, LayerShape, allocate, attend
from inference_workers.layers.batch import Segment, Window, build
from inference_workers.layers.heads import Heads
from inference_workers.layers.linear import Embedding, Head, Linear, Packed
from inference_workers.layers.masks import Mask
from inference_workers.layers.norm import HeadsNorm, RMSNorm
from inference_workers.layers.packing import KINDS, Kind, pack, unpack
from inference_workers.layers.quantize import quantized
from inference_workers.layers.rotary import Rotary, frequencies
from inference_workers.models import registry
from inference_workers.native import Kernels, kernels, trial
from inference_workers.native.build import build as build_kernels
from inference_workers.native.build import library_path
from tests.inference_workers import checkpoints


@pytest.fixture(scope="module", autouse=True)
def built() -> Kernels:
    """`make` builds them wherever it can; a machine that can't has nothing to test here."""
    assert build_kernels() == library_path()
    found = kernels()
    assert found is not None
    return found


def matrix(kind: Kind, rows: int, columns: int, seed: int = 0) -> Packed:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << kind.bits, (rows, columns), dtype=np.uint8)
    scales = (rng.random((rows, columns // kind.group)) * 0.02 + 0.001).astype(np.float16)
    minimums = (rng.standard_normal((rows, columns // 32)) * 0.05).astype(np.float16)
    data = pack(kind, codes, scales, minimums if kind.minimum else None)
    return Packed(kind, torch.from_numpy(data), rows, columns)


def dense(weight: Packed) -> Tensor:
    return weight.dense(torch.float32, torch.device("cpu"))


def rounded(x: Tensor) -> Tensor:
    """Rows as the kernels see them: 32 values share a scale of a 127th of the largest."""
    groups = x.view(x.shape[0], -1, 32)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    codes = (groups * (1 / scale)).round()
    return (codes * scale).view_as(x)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_packed_product_is_the_dense_one(kind: Kind, rows: int) -> None:
    torch.manual_seed(rows)
    first, second = matrix(kind, 40, 96), matrix(kind, 16, 96, seed=1)
    bias = torch.randn(56)
    x = torch.randn(rows, 96)
    truth = F.linear(rounded(x), torch.cat((dense(first), dense(second))), bias)
    found = Linear.fused([first, second], [bias[:40], bias[40:]]).forward(x)
    assert torch.allclose(found, truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max()))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_row_is_computed_the_same_beside_any_others(kind: Kind) -> None:
    x = torch.randn(23, 160)
    product = Linear(matrix(kind, 600, 160))
    together = product.forward(x)
    for size in (1, 2, 3, 5, 8):
        parts = [product.forward(x[i : i + size]) for i in range(0, 23, size)]
        assert torch.equal(torch.cat(parts), together)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_embedding_looks_up_the_same_weights(kind: Kind) -> None:
    weight = matrix(kind, 70, 64)
    tokens = torch.tensor([0, 69, 7, 8, 15, 16, 33])
    found = Embedding(weight, torch.tensor(2.5)).forward(tokens)
    assert torch.allclose(found, dense(weight)[tokens] * 2.5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 5, 70])
def test_the_screened_choice_is_the_whole_one(rows: int) -> None:
    torch.manual_seed(rows)
    kind, data = quantized(torch.randn(5000, 64).numpy(), 8)
    weight = Packed(kind, torch.from_numpy(data), 5000, 64)
    head = Head(weight, shared=True)
    # States near a token's own weights, as a trained head's are, and some that fit none.
    states = dense(weight)[torch.randint(5000, (rows,))] * 0.3 + torch.randn(rows, 64)
    logits = head.forward(states)
    best, token = head.greedy(states)
    assert torch.equal(best, logits.amax(-1))
    assert torch.equal(token, logits.argmax(-1))


def test_of_equal_logits_the_first_token_is_chosen() -> None:
    row = np.ones((1, 32), np.float32)
    kind, data = quantized(np.repeat(row, 2000, 0), 8)
    head = Head(Packed(kind, torch.from_numpy(data), 2000, 32), shared=True)
    assert head.greedy(torch.ones(3, 32))[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_spoils_its_own_row_alone(wrong: float) -> None:
    kind, data = quantized(torch.randn(700, 64).numpy(), 8)
    head = Head(Packed(kind, torch.from_numpy(data), 700, 64), shared=True)
    states = torch.randn(6, 64)
    clean = head.greedy(states)[1]
    states[2, 40] = wrong
    best, token = head.greedy(states)
    assert best.isfinite().tolist() == [True, True, False, True, True, True]
    assert torch.equal(token[[0, 1, 3, 4, 5]], clean[[0, 1, 3, 4, 5]])
    assert not head.forward(states)[2].isfinite().any()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_greedy_choice_is_made_among_what_masks_allow(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    weight = matrix(kind, 5000, 64)
    states = torch.randn(70, 64)
    masks: list[Mask | None] = [None] * 70
    for row, share in zip(range(1, 70, 3), [0.9, 0.5, 0.001] * 8, strict=False):
        allowed = np.packbits(rng.random(4992) < share, bitorder="little")
        allowed[row * 8] |= 16  # something
        masks[row] = allowed.view(np.int32)
    masks[69] = np.zeros(156, np.int32)
    for head in (Head(weight, shared=True), Head(dense(weight), shared=True)):
        truth = head.forward(states)
        for row, mask in enumerate(masks):
            if mask is not None:
                bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
                truth[row, np.append(bits, [0] * 8) == 0] = -math.inf
        best, token = head.greedy(states, masks)
        assert torch.equal(best, truth.amax(-1))
        assert torch.equal(token[:-1], truth.argmax(-1)[:-1])
        assert best[-1] == -math.inf


def test_norms_and_gates_are_those_of_torch() -> None:
    torch.manual_seed(0)
    x, onto, scale = torch.randn(70, 96) * 3, torch.randn(70, 96), torch.randn(96)
    rms = RMSNorm(scale, 1e-6, offset=1.0)
    truth = F.rms_norm(x, (96,), scale + 1, 1e-6)
    assert torch.allclose(rms.forward(x), truth, rtol=1e-5, atol=1e-6)
    assert torch.allclose(rms.forward(x, onto=onto), onto + truth, rtol=1e-5, atol=1e-5)
    wide = torch.cat((torch.randn(9, 48) * 20, torch.randn(9, 48)), -1)
    pairs: tuple[tuple[Gate, Tensor], ...] = (
        ("silu", F.silu(wide[:, :48])),
        ("gelu_tanh", F.gelu(wide[:, :48], approximate="tanh")),
    )
    for gate, front in pairs:
        assert torch.allclose(gated(wide, gate), front * wide[:, 48:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_gates_within_a_product_are_those_after_it(gate: Gate, rows: int) -> None:
    torch.manual_seed(rows)
    x = torch.randn(rows, 96) * 4
    for kind in KINDS.values():
        both = Linear.fused([matrix(kind, 40, 96), matrix(KINDS["q5"], 40, 96, seed=1)])
        assert torch.equal(both.gated(x, gate), gated(both.forward(x), gate)), kind.name


def test_gates_that_are_no_two_equal_halves_or_have_a_bias_are_computed_after_the_product() -> None:
    torch.manual_seed(0)
    x, first, second = torch.randn(3, 96), matrix(KINDS["q8"], 32, 96), matrix(KINDS["q8"], 16, 96)
    shifted = Linear.fused([first, first], [torch.randn(32), torch.randn(32)])
    for product in (shifted, Linear.fused([first, second, second]), Linear(first)):
        assert torch.equal(product.gated(x, "silu"), gated(product.forward(x), "silu"))


HEADS, KEYS, SIZE, BLOCK = 4, 2, 32, 8
ROTARY = Rotary(frequencies({"rope_theta": 1e4}, SIZE), torch.float32, torch.device("cpu"))


def attended(
    lengths: list[tuple[int, int]], window: Window, dtype: torch.dtype, *, by_kernel: bool
) -> Tensor:
    """Two sequences, computed in steps of so many tokens each; rows of all steps, in order."""
    torch.manual_seed(4)
    total = [sum(step) for step in zip(*lengths, strict=True)]
    inputs = [torch.randn(n, (HEADS + 2 * KEYS) * SIZE) for n in total]
    norms = HeadsNorm(torch.randn(SIZE), torch.randn(SIZE), (HEADS, KEYS), 1e-6, offset=1)
    split = Heads(HEADS, KEYS, SIZE, norms)
    shape = LayerShape(KEYS, SIZE, SIZE, window)
    place = {"dtype": dtype, "device": torch.device("cpu")}
    (store,) = allocate([shape], blocks=60, block_size=BLOCK, **place)  # type: ignore[arg-type]
    blocks = [list(range(1, 30)), list(range(30, 60))]
    done, found = [0, 0], [[], []]  # type: tuple[list[int], list[list[Tensor]]]
    for step in lengths:
        chosen = [i for i in (0, 1) if step[i]]
        segments = [
            Segment([0] * step[i], done[i], blocks[i][: -(-(done[i] + step[i]) // BLOCK)], ())
            for i in chosen
        ]
        batch = build(
            segments, block_size=BLOCK, windows=(window,), dtype=torch.float32,
            device=torch.device("cpu"), kernels=by_kernel,
        )  # fmt: skip
        laid = _laid(batch.positions, done, step, chosen)
        rows = torch.cat([inputs[i][at : at + 1] for i, at in laid])
        queries = split.place(rows, ROTARY.at(batch.positions, batch.longest), batch, store)
        out = attend(queries, store, batch, window=window, scale=0.2)
        for (i, _), row in zip(laid, out, strict=True):
            found[i].append(row)
        done = [d + s for d, s in zip(done, step, strict=True)]
    return torch.stack(found[0] + found[1])


def _laid(
    positions: Tensor, done: list[int], step: tuple[int, int], chosen: list[int]
) -> list[tuple[int, int]]:
    """Which sequence and position each row of a batch is."""
    order = sorted(chosen, key=lambda i: (step[i], done[i] + step[i]), reverse=True)
    for candidate in (chosen, order):
        rows = [(i, at) for i in candidate for at in range(done[i], done[i] + step[i])]
        if [at for _, at in rows] == positions.tolist():
            return rows
    raise AssertionError("an unknown order of rows")


CHUNKS = [(40, 7), (1, 1), (1, 30), (1, 1), (3, 1)]


@pytest.mark.parametrize("window", [None, 12])
def test_attention_is_that_of_torch(window: Window) -> None:
    truth = attended(CHUNKS, window, torch.float32, by_kernel=False)
    found = attended(CHUNKS, window, torch.float32, by_kernel=True)
    assert torch.allclose(found, truth, rtol=1e-4, atol=1e-5)
    halves = attended(CHUNKS, window, torch.float16, by_kernel=True)
    assert torch.allclose(halves, truth, rtol=2e-2, atol=5e-3)


@pytest.mark.parametrize("window", [None, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_attention_is_the_same_in_any_chunks(window: Window, dtype: torch.dtype) -> None:
    whole = attended([(46, 40)], window, dtype, by_kernel=True)
    for chunks in (CHUNKS, [(1, 1)] * 40 + [(1, 0)] * 6, [(16, 0), (30, 40)]):
        assert torch.equal(attended(list(chunks), window, dtype, by_kernel=True), whole)


def test_a_store_knows_its_kernels_view() -> None:
    shape = LayerShape(KEYS, SIZE, SIZE)
    (kept,) = allocate(
        [shape], blocks=3, block_size=BLOCK, dtype=torch.bfloat16, device=torch.device("cpu")
    )
    assert isinstance(kept, KeyValues)
    assert kept.native is None


def test_threads_of_python_may_all_compute_at_once(built: Kernels) -> None:
    x, product = torch.randn(64, 256), Linear(matrix(KINDS["q4m"], 4000, 256))
    truth = product.forward(x)
    wrong: list[bool] = []

    def work() -> None:
        wrong.extend(not torch.equal(product.forward(x), truth) for _ in range(20))

    built.short.lm_set_threads(2)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)
    assert len(wrong) == 80


def test_both_sets_of_instructions_agree_or_only_one_is_used(built: Kernels) -> None:
    """Where the processor has AVX-512, it must compute bit by bit what AVX2 does."""
    if built.short.lm_choose(512):
        wide = trial.results(built.long)
        assert built.short.lm_choose(2)
        assert trial.results(built.long) == wide
        assert built.short.lm_choose(512)
    assert all(math.isfinite(value) for value in trial.results(built.long))
    assert len(set(trial.results(built.long))) > 200


@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.006), (4, 0.09)])
def test_quantizing_loses_little(bits: int, allowed: float) -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((33, 96)).astype(np.float32)
    values[0] = 0
    values[1] = 0.5
    kind, data = quantized(values, bits)
    found = unpack(kind, data, 33, 96)
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], values[0])
    assert np.allclose(found[1], values[1], rtol=1e-3)
    error = np.sqrt(np.square(found - values).mean() / np.square(values).mean())
    assert error < allowed


def test_parts_are_read_where_they_lie() -> None:
    """The kernels' structures are those of C: what is written here is read there."""
    weight = matrix(KINDS["q5"], 16, 32)
    part = weight.part(at=5)
    assert ctypes.sizeof(part) == 32
    assert (part.kind, part.outputs, part.columns, part.at) == (1, 16, 32, 5)
    assert part.second - part.first == KINDS["q5"].first


def test_without_kernels_packed_weights_are_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor, or no compiler: the same answers within rounding, all in torch."""
    module = checkpoints.reference("gemma3")
    weights: dict[str, Tensor | Packed] = {}
    for name, tensor in module.state_dict().items():
        weights[name] = tensor
        if tensor.dim() == 2:
            kind, data = quantized(tensor.numpy(), 8)
            weights[name] = Packed(kind, torch.from_numpy(data), *tensor.shape)

    def logits() -> Tensor:
        served = registry.build(module.config, weights, dtype=torch.float32)
        runner = Runner(served, blocks=8, block_size=16)
        request = Request(job="a", choice=0, tokens=[5, 9, 200, 31], prompt=4, blocks=[1])
        with torch.inference_mode():
            return served.logits(runner.run([Work(request, 4, range(0), sampled=True)]))

    by_kernels = logits()
    for layer in (linear, norm, attention, activation, heads):
        monkeypatch.setattr(layer, "kernels", lambda: None)
    by_torch = logits()
    assert not torch.equal(by_torch, by_kernels)
    assert torch.allclose(by_torch, by_kernels, atol=0.05 * float(by_torch.abs().max()))
