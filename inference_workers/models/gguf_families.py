"""How each architecture in a GGUF file becomes a transformers configuration and checkpoint.

llama.cpp's converter renames tensors, stores Gemma's norms as ``1 + w``, interleaves LLaMA's query
and key rows for its rotary embedding, and takes BLOOM's interleaved heads apart. What it leaves
unsaid about a scaled rotary embedding is worked out here, or refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_workers.errors import ModelError
from inference_workers.models.gguf_file import GgufFile

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[Any]
Config = dict[str, Any]
MAX_LAYERS = 1024
ROPE_FREQS = "rope_freqs.weight"
"""What each rotary frequency is divided by: how Llama 3.1 and later scale theirs."""

_ROPE_KEYS = {"type", "factor", "original_context_length", "finetuned"}
_YARN_BETAS = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
_GATED = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


@dataclass(frozen=True, slots=True)
class Family:
    """One GGUF architecture: its config, its tensors' names, and what was done to their values.

    ``reorder(name, rows, config)`` undoes a permutation of the rows of the tensors whose Hugging
    Face names end in ``reordered``; rows are values, or bytes of quantised blocks.
    """

    config: Callable[[GgufFile, str], Config]
    names: dict[str, str]
    layers: str = "model.layers"
    norm_offset: float = 0.0
    reordered: tuple[str, ...] = ()
    reorder: Callable[[str, Rows, Config], Rows] | None = None


def layer_count(file: GgufFile, architecture: str) -> int:
    """``block_count``, refused where it is absurd."""
    layers = int(file.require(f"{architecture}.block_count"))
    if not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{layers} layers")
    return layers


def _shared(file: GgufFile) -> Config:
    return {
        "vocab_size": len(file.require("tokenizer.ggml.tokens")),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
        "dtype": "bfloat16",
    }


def _gated(file: GgufFile, architecture: str) -> Config:
    """What every relative of LLaMA says about its shape."""
    key = f"{architecture}."
    heads = int(file.require(key + "attention.head_count"))
    hidden = int(file.require(key + "embedding_length"))
    return _shared(file) | {
        "hidden_size": hidden,
        "intermediate_size": int(file.require(key + "feed_forward_length")),
        "num_hidden_layers": layer_count(file, architecture),
        "num_attention_heads": heads,
        "num_key_value_heads": int(file.metadata.get(key + "attention.head_count_kv", heads)),
        "head_dim": int(file.metadata.get(key + "attention.key_length", hidden // max(1, heads))),
        "max_position_embeddings": int(file.require(key + "context_length")),
        "rms_norm_eps": _short_float(file.require(key + "attention.layer_norm_rms_epsilon")),
    }


def _short_float(value: float) -> float:
    """The float32 that the file stores, written as people write it (1e-06, not 9.99…e-07)."""
    return float(str(np.float32(value)))


def _rope(file: GgufFile, architecture: str, head_size: int) -> Config:
    """``rope_parameters`` as transformers spells them."""
    prefix = f"{architecture}.rope."
    scaling = {
        key.removeprefix(prefix + "scaling."): value
        for key, value in file.metadata.items()
        if key.startswith(prefix + "scaling.")
    }
    theta = float(file.metadata.get(prefix + "freq_base", 10000.0))
    kind = scaling.get("type", "none")
    plain: Config = {"rope_type": "default", "rope_theta": theta}
    whole = int(file.metadata.get(prefix + "dimension_count", head_size)) == head_size
    if not whole or set(scaling) - _ROPE_KEYS - (set(_YARN_BETAS) if kind == "yarn" else set()):
        raise _unknown_rope(file)
    if ROPE_FREQS in file.tensors and kind == "none":
        trained = int(scaling.get("original_context_length", 8192))
        return _llama3_rope(file, plain, trained, head_size)
    if ROPE_FREQS in file.tensors or kind not in ("none", "linear", "yarn"):
        raise _unknown_rope(file)
    if kind == "none":
        return plain
    scaled = plain | {"rope_type": kind, "factor": float(scaling["factor"])}
    if kind == "yarn":
        scaled["original_max_position_embeddings"] = int(scaling["original_context_length"])
        scaled |= {name: float(scaling[key]) for key, name in _YARN_BETAS.items() if key in scaling}
    return scaled


def _llama3_rope(file: GgufFile, plain: Config, trained: int, head_size: int) -> Config:
    """Llama 3.1's scaling, told by its effect alone: its numbers are guessed, then proved."""
    from inference_workers.layers.rotary import frequencies

    divisors = np.concatenate(list(file.rows(file.tensors[ROPE_FREQS])))
    guess = {
        "rope_type": "llama3",
        "rope_theta": plain["rope_theta"],
        "factor": float(divisors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": trained,
    }
    ratios = (frequencies(plain, head_size) / frequencies(guess, head_size)).numpy()
    if divisors.shape != ratios.shape or not np.allclose(divisors, ratios, rtol=1e-4):
        raise _unknown_rope(file)
    return guess


def _unknown_rope(file: GgufFile) -> ModelError:
    return ModelError(
        f"{file.path.name} scales its rotary embeddings in a way that GGUF does not describe "
        "fully. Use the model's safetensors checkpoint instead.",
        code="unsupported_rope",
    )


def _gemma3_config(file: GgufFile, architecture: str) -> Config:
    key = f"{architecture}."
    shape = _gated(file, architecture)
    layers, head_dim = shape["num_hidden_layers"], int(file.require(key + "attention.key_length"))
    full: Config = {
        "rope_type": "default",
        "rope_theta": float(file.metadata.get(key + "rope.freq_base", 1e6)),
    }
    if file.metadata.get(key + "rope.scaling.type") == "linear":
        full |= {"rope_type": "linear", "factor": float(file.require(key + "rope.scaling.factor"))}
    # The 27B model (62 layers) alone scales its queries by another number: see llama.cpp's gemma3.
    wide = shape["hidden_size"] // shape["num_attention_heads"]
    return shape | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": wide if layers == 62 else head_dim,
        "sliding_window": int(file.require(key + "attention.sliding_window")),
        "layer_types": [
            "full_attention" if (index + 1) % 6 == 0 else "sliding_attention"
            for index in range(layers)
        ],
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


def _llama_config(file: GgufFile, architecture: str) -> Config:
    shape = _gated(file, architecture)
    biases = [f"blk.0.attn_{part}.bias" in file.tensors for part in ("q", "k", "v", "output")]
    if any(biases) and not all(biases):
        raise ModelError(
            f"{file.path.name} has biases on some of its attention's projections alone, which "
            "LLaMA's layers have no place for. Use the model's safetensors checkpoint instead.",
            code="unsupported_tensor",
        )
    return shape | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rope_parameters": _rope(file, architecture, shape["head_dim"]),
        "attention_bias": all(biases),
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
    }


def _qwen_config(file: GgufFile, architecture: str) -> Config:
    shape = _gated(file, architecture)
    return shape | {
        "architectures": [f"{architecture.capitalize()}ForCausalLM"],
        "model_type": architecture,
        "hidden_act": "silu",
        "rope_parameters": _rope(file, architecture, shape["head_dim"]),
        "use_sliding_window": False,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
    }


def _bloom_config(file: GgufFile, architecture: str) -> Config:
    key = f"{architecture}."
    return _shared(file) | {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "hidden_size": int(file.require(key + "embedding_length")),
        "n_layer": layer_count(file, architecture),
        "n_head": int(file.require(key + "attention.head_count")),
        "seq_length": int(file.require(key + "context_length")),
        "layer_norm_epsilon": _short_float(file.require(key + "attention.layer_norm_epsilon")),
        "apply_residual_connection_post_layernorm": False,
    }


def _halves_together(name: str, values: Rows, config: Config) -> Rows:
    """Query and key rows as pairs (a rotary embedding of neighbours) become two halves again."""
    heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
    split = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))


def _head_by_head(name: str, values: Rows, config: Config) -> Rows:
    """All queries, all keys, all values become each head's own three again."""
    heads = config["n_head"]
    split = values.reshape(3, heads, values.shape[0] // heads // 3, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(0, 1).reshape(values.shape))


FAMILIES = {
    "gemma3": Family(
        config=_gemma3_config,
        norm_offset=1.0,
        names=_GATED
        | _HEAD_NORMS
        | {
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
    ),
    # Mistral's files call themselves llama, too.
    "llama": Family(
        config=_llama_config,
        names=_GATED,
        reordered=("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias"),
        reorder=_halves_together,
    ),
    "qwen2": Family(config=_qwen_config, names=_GATED),
    "qwen3": Family(config=_qwen_config, names=_GATED | _HEAD_NORMS),
    "bloom": Family(
        config=_bloom_config,
        layers="transformer.h",
        names={
            "token_embd": "transformer.word_embeddings",
            "token_embd_norm": "transformer.word_embeddings_layernorm",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        reordered=("query_key_value.weight", "query_key_value.bias"),
        reorder=_head_by_head,
    ),
}
