"""``deterministic``: the same tokens and log-probabilities, bit by bit, whatever else runs."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from inference_workers.contract import Delta, Job
from inference_workers.engine.engine import TorchEngine
from inference_workers.errors import RequestError
from inference_workers.layers.linear import Matrix, Packed
from inference_workers.layers.quantize import quantized
from inference_workers.models import registry
from inference_workers.models.base import CausalModel
from inference_workers.native import kernels
from tests.inference_workers.checkpoints import VOCABULARY, engine, job, prompts, run, tokenizer

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 0,
}
NAMES = ("llama", "gemma3")
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.3},
    {"temperature": 0.9, "top_p": 0.8, "top_k": 30, "repetition_penalty": 1.2},
    {"temperature": 1.1, "min_p": 0.02, "prompt_logprobs": 1},
)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    assert kernels() is not None, "run make build: the kernels are built there"


def small(name: str) -> Any:
    if name == "llama":
        return transformers.LlamaConfig(**SHAPE)
    if name == "mistral":
        return transformers.MistralConfig(**SHAPE, sliding_window=12)
    if name == "qwen3":
        return transformers.Qwen3Config(**SHAPE)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return transformers.Gemma3TextConfig(**SHAPE, sliding_window=12, layer_types=kinds)


@functools.cache
def packed_model(name: str, bits: int) -> CausalModel:
    torch.manual_seed(3)
    config = small(name)
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights: dict[str, Matrix] = {}
    for key, value in module.state_dict().items():
        if value.dim() < 2:
            weights[key] = value + torch.randn_like(value) * 0.2
            continue
        wide = torch.randn_like(value) * (0.06 if "embed" in key else 0.3)
        kind, data = quantized(wide.numpy(), bits)
        weights[key] = Packed(kind, torch.from_numpy(data), *value.shape)
    return registry.build(config, weights, dtype=torch.float32)


def packed_engine(name: str, bits: int = 4, *, blocks: int = 400, **settings: Any) -> TorchEngine:
    served = packed_model(name, bits)
    memory = blocks * 4 * served.shape.token_bytes()
    arguments = {"token_budget": 64, "block_size": 4, "kv_memory": memory, **settings}
    return TorchEngine(served, tokenizer(), **arguments)


def jobs() -> list[Job]:
    """A request for each sampling and each of some prompts that share a beginning."""
    shared = prompts(1, seed=11, longest=60)[0]
    return [
        job(f"{i}-{n}", (*shared, *prompt), seed=i, logprobs=2, deterministic=True, **sampling)
        for i, prompt in enumerate(prompts(4))
        for n, sampling in enumerate(SAMPLINGS)
    ]


def said(events: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Everything that was sampled or scored, bit by bit."""
    deltas = [event for event in events if isinstance(event, Delta)]
    return [(d.choice, d.first, d.token_ids, d.logprobs, d.prompt_logprobs) for d in deltas]


@functools.cache
def alone(name: str, bits: int = 4) -> dict[str, list[tuple[Any, ...]]]:
    """Each job by itself, its prompt in one piece."""
    found = {}
    for item in jobs():
        found[item.id] = said(run(packed_engine(name, bits, token_budget=512), [item])[item.id])
    return found


@pytest.mark.parametrize(
    ("name", "bits"),
    [*((name, bits) for name in NAMES for bits in (4, 8)), ("mistral", 8), ("qwen3", 4)],
)
def test_answers_differ_by_request_and_are_the_same_beside_others(name: str, bits: int) -> None:
    truth = alone(name, bits)
    assert len({str(answer) for answer in truth.values()}) > len(truth) / 2
    strangers = [job(f"stranger-{i}", ids, seed=i) for i, ids in enumerate(prompts(16, seed=5))]
    together = run(packed_engine(name, bits, slots=32, blocks=1200), [*jobs(), *strangers])
    assert len(together) == 32  # each beside 31 others
    assert {key: said(together[key]) for key in truth} == truth


@pytest.mark.parametrize("budget", [1, 7, 33])
@pytest.mark.parametrize("name", NAMES)
def test_the_prompts_chunks_change_nothing(name: str, budget: int) -> None:
    served = packed_engine(name, token_budget=budget)
    found = run(served, jobs()[::3])
    assert {key: said(events) for key, events in found.items()} == {
        item.id: alone(name)[item.id] for item in jobs()[::3]
    }


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_neither_does_what_is_in_the_cache_nor_who_comes_and_goes(name: str, reuse: bool) -> None:
    served = packed_engine(name, reuse_prefixes=reuse)
    wanted = [
        item.model_copy(update={"prefixes": (("shared", len(item.input_ids)),)}) for item in jobs()
    ]
    draw = random.Random(5)
    draw.shuffle(wanted)
    found: dict[str, list[Any]] = {}
    strangers = 0
    while wanted or served.busy:
        for _ in range(draw.randrange(3)):
            if wanted:
                served.add(wanted.pop())
        if draw.random() < 0.3:
            strangers += 1
            prompt = prompts(20, seed=3)[strangers % 20]
            served.add(job(f"stranger-{strangers}", prompt, max_tokens=3, temperature=0.5))
        for job_id, event in served.step():
            found.setdefault(job_id, []).append(event)
    assert bool(served.stats().prefix_hits) is reuse
    for key, answer in alone(name).items():
        if reuse:  # a scored prompt is computed whole; usage alone tells reuse
            assert [a[:4] for a in said(found[key])] == [a[:4] for a in answer]
        else:
            assert said(found[key]) == answer


@pytest.mark.parametrize("name", NAMES)
def test_preemption_changes_nothing(name: str) -> None:
    served = packed_engine(name, blocks=60)
    found = run(served, jobs())
    assert served.stats().prompt_tokens > sum(len(item.input_ids) for item in jobs())
    assert {key: said(events) for key, events in found.items()} == alone(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_takeover_goes_on_with_the_same_bits(name: str) -> None:
    for item in jobs()[:4]:
        deltas = [e for e in run(packed_engine(name), [item])[item.id] if isinstance(e, Delta)]
        for cut in (1, 5, len(deltas) - 1):
            served = packed_engine(name, token_budget=9)
            served.add(job("stranger", prompts(3)[2], max_tokens=5))
            served.step()
            served.add(item, deltas[:cut])
            assert said(run(served, [])[item.id]) == alone(name)[item.id][cut:]


def test_it_is_refused_with_the_remedy_where_weights_are_dense() -> None:
    for name in ("llama", "gpt2"):
        with pytest.raises(RequestError, match="models quantize"):
            engine(name).add(job("job", prompts(1)[0], deterministic=True))


def test_one_dense_matrix_is_enough_for_a_refusal() -> None:
    served = packed_model("llama", 8)
    assert served.shape.deterministic
    config = transformers.LlamaConfig(**SHAPE)
    module: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights: dict[str, Matrix] = dict(module.state_dict())
    for key, value in module.state_dict().items():
        if value.dim() == 2 and "layers.1.mlp.down" not in key:
            kind, data = quantized(value.numpy(), 8)
            weights[key] = Packed(kind, torch.from_numpy(data), *value.shape)
    mixed = registry.build(config, weights, dtype=torch.float32)
    assert mixed.shape == replace(
        served.shape, deterministic=False, bytes=mixed.shape.bytes, windows=mixed.shape.windows
    )
