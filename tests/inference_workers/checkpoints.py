"""Small random models made on the spot, a byte tokenizer, and transformers' own answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models

from inference_workers.contract import Delta, Job, Sampling
from inference_workers.engine.engine import TorchEngine
from inference_workers.models import registry
from inference_workers.models.base import CausalModel
from inference_workers.vocabulary import _byte_of

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# Models this small gain nothing from a second thread, and lose much where others compute as well.
torch.set_num_threads(1)

VOCABULARY = 300
_ROPE3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 0,
}
_GATED = {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
_BLOOM = {k: v for k, v in _SMALL.items() if not k.startswith(("num_", "max_", "hidden"))}


def _configs() -> dict[str, Any]:
    t = transformers
    return {
        "llama": t.LlamaConfig(**_GATED, tie_word_embeddings=True),
        "llama-biased-llama3": t.LlamaConfig(
            **_GATED, attention_bias=True, mlp_bias=True, rope_parameters=_ROPE3
        ),
        "llama-linear": t.LlamaConfig(
            **_GATED,
            head_dim=16,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        ),
        "gemma3": t.Gemma3TextConfig(
            **_GATED,
            head_dim=16,
            sliding_window=12,
            query_pre_attn_scalar=24,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "opt": t.OPTConfig(**_SMALL, ffn_dim=64, word_embed_proj_dim=32),
        "bloom": t.BloomConfig(**_BLOOM, hidden_size=32, n_layer=2, n_head=4),
        "gpt2": t.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256
        ),
        "gpt-neox": t.GPTNeoXConfig(**_SMALL, intermediate_size=64),
        "qwen2": t.Qwen2Config(**_GATED),
        "mistral-windowed": t.MistralConfig(**_GATED, sliding_window=12),
        "phi": t.PhiConfig(**_SMALL, intermediate_size=64),
        "llama-yarn": t.LlamaConfig(**_GATED, rope_parameters=_YARN),
        "llama-dynamic": t.LlamaConfig(
            **_GATED, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        ),
        "mistral": t.MistralConfig(**_GATED, sliding_window=None, head_dim=16),
        "qwen2-windowed": t.Qwen2Config(
            **_GATED, use_sliding_window=True, sliding_window=12, max_window_layers=1
        ),
        "qwen3": t.Qwen3Config(**_GATED, head_dim=16, tie_word_embeddings=True),
        "qwen3-biased-yarn": t.Qwen3Config(
            **_GATED, head_dim=8, attention_bias=True, rope_parameters=_YARN
        ),
        "opt-350m": t.OPTConfig(
            **_SMALL, ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False
        ),
        "opt-galactica": t.OPTConfig(
            **{**_SMALL, "hidden_size": 64},
            ffn_dim=64,
            activation_function="gelu",
            enable_bias=False,
            layer_norm_elementwise_affine=False,
        ),
        "bloom-6-heads": t.BloomConfig(**_BLOOM, hidden_size=48, n_layer=2, n_head=6),
        "mpt": t.MptConfig(
            vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=256
        ),
        "starcoder2-windowed": t.Starcoder2Config(**_GATED, sliding_window=12),
        "bloom-normed-residual": t.BloomConfig(
            **_BLOOM,
            hidden_size=96,
            n_layer=2,
            n_head=6,
            apply_residual_connection_post_layernorm=True,
        ),
    }


NAMES = tuple(_configs())
GENERIC = ("gpt2", "gpt-neox", "phi", "mpt", "starcoder2-windowed")
LEAN = tuple(name for name in NAMES if name not in GENERIC)


_SPREADS = {
    "bloom": (0.8, 0.2, 0.06),
    "bloom-6-heads": (0.8, 0.1, 0.5),
    "bloom-normed-residual": (0.2, 0.05, 0.06),
    "opt-350m": (0.8, 0.2, 0.3),
}
"""Deviations of matrices, of vectors and of embeddings, where the usual ones repeat one token."""


@functools.cache
def reference(name: str) -> Any:
    """transformers' module, its weights spread enough that greedy answers vary."""
    matrices, vectors, embeddings = _SPREADS.get(name, (0.4, 0.2, 0.06))
    torch.manual_seed(NAMES.index(name))
    config = _configs()[name]
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for key, weight in module.named_parameters():
            if weight.dim() > 1:
                # Small embeddings, or a tied head would only repeat the last token.
                weight.normal_(0, embeddings if "embed" in key or "wte" in key else matrices)
            else:
                weight.add_(torch.randn_like(weight) * vectors)
    module.tie_weights()
    return module


@functools.cache
def model(name: str) -> CausalModel:
    module = reference(name)
    return registry.build(module.config, module.state_dict(), dtype=torch.float32)


@functools.cache
def tokenizer() -> Tokenizer:
    """One token a byte, then unused names up to the vocabulary's size."""
    byte_of = _byte_of()
    vocabulary = {name: byte_of[name] for name in byte_of}
    vocabulary.update({f"<{i}>": i for i in range(256, VOCABULARY)})
    result = Tokenizer(models.BPE(vocabulary, []))
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens([f"<{i}>" for i in range(256, VOCABULARY)])
    return result


def engine(name: str, **settings: Any) -> TorchEngine:
    """An engine with small blocks and little room, so that both are exercised."""
    return serving(model(name), **settings)


def serving(served: CausalModel, **settings: Any) -> TorchEngine:
    """The same for a model of the test's own."""
    block_size = settings.pop("block_size", 4)
    blocks = settings.pop("blocks", 200)
    return TorchEngine(
        served,
        tokenizer(),
        block_size=block_size,
        kv_memory=blocks * block_size * served.shape.token_bytes(),
        **{"token_budget": 64, **settings},
    )


def job(name: str, prompt: Sequence[int], *, seed: int = 0, **sampling: Any) -> Job:
    sampling = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 12, **sampling}
    return Job(
        id=name,
        team="team",
        source="test",
        model="small",
        model_digest="",
        input_ids=tuple(prompt),
        sampling=Sampling(**sampling),
        seed=seed,
    )


@functools.cache
def prompts(count: int, *, seed: int = 7, longest: int = 40) -> tuple[tuple[int, ...], ...]:
    """Random prompts of mixed lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return tuple(
        tuple(torch.randint(0, VOCABULARY, (length,), generator=generator).tolist())
        for length in lengths
    )


@functools.cache
def expected(name: str, prompt: tuple[int, ...], tokens: int = 12) -> tuple[int, ...]:
    """Greedy tokens by ``transformers.generate``, alone, the end token ignored."""
    out = reference(name).generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=-1,
        pad_token_id=0,
    )
    return tuple(out[0, len(prompt) :].tolist())


def run(
    served: TorchEngine, jobs: Sequence[Job], *, each_step: Any = None, limit: int = 2000
) -> dict[str, list[Any]]:
    """Add all jobs and step to the end, checking every block after every step."""
    found: dict[str, list[Any]] = {}
    for item in jobs:
        served.add(item)
    for _ in range(limit):
        if not served.busy:
            return found
        for job_id, event in served.step():
            found.setdefault(job_id, []).append(event)
        served.check()
        if each_step is not None:
            each_step()
    raise AssertionError("the engine does not come to an end")


def tokens(events: Sequence[Any], choice: int = 0) -> tuple[int, ...]:
    deltas = [e for e in events if isinstance(e, Delta) and e.choice == choice]
    firsts = [d.first for d in deltas if d.token_ids]
    assert firsts == list(range(len(firsts)))
    return tuple(t for d in deltas for t in d.token_ids)


def text(events: Sequence[Any], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.choice == choice)
