"""Small checkpoints as GGUF files, written as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFWriter,
    RopeScalingType,
    get_tensor_name_map,
    quantize,
)

from tests.inference_workers.checkpoints import VOCABULARY, tokenizer

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "bloom": MODEL_ARCH.BLOOM,
}
PRE = {"llama": "llama-bpe", "mistral": "tekken", "qwen2": "qwen2", "qwen3": "qwen2"}
K_FACTORS = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where a block's float16 factors lie in the types that the ``gguf`` package can't write."""


def write_gguf(path: Path, module: Any, *, kind: str = "F32") -> Path:
    """``module`` (transformers' own) with its matrices stored as ``kind``."""
    config = module.config
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, architecture.name.lower())
    writer.add_name("small")
    if config.model_type == "bloom":
        _bloom_metadata(writer, config)
    else:
        _gated_metadata(writer, config)
    _vocabulary(writer, PRE.get(config.model_type, "bloom"))
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    tensors = {k: v.float().numpy() for k, v in module.state_dict().items()}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    for name, values in tensors.items():
        short = names.get_name(name.removeprefix("transformer."), (".weight", ".bias"))
        assert short is not None, name
        _add(writer, short, _arranged(name, values, config), kind)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    return path


def _add(writer: GGUFWriter, name: str, values: np.ndarray, kind: str) -> None:
    quantised = GGMLQuantizationType[kind]
    if values.ndim == 1 or kind == "F32":
        writer.add_tensor(name, values)
    elif kind in K_FACTORS:
        writer.add_tensor(name, _blocks(quantised, values.shape), raw_dtype=quantised)
    else:
        writer.add_tensor(name, quantize(values, quantised), raw_dtype=quantised)


def _blocks(kind: GGMLQuantizationType, shape: tuple[int, ...]) -> np.ndarray:
    """Random blocks, their factors small and finite."""
    block, size = GGML_QUANT_SIZES[kind]
    draw = np.random.default_rng(shape[0])
    raw = draw.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    for at in K_FACTORS[kind.name]:
        factors = draw.uniform(0.001, 0.01, (len(raw), 1)).astype(np.float16)
        raw[:, at : at + 2] = factors.view(np.uint8)
    return raw.reshape(shape[0], -1)


def _arranged(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """Rows in the order in which llama.cpp wants them."""
    if "query_key_value" in name:
        heads = values.reshape(config.n_head, 3, -1, *values.shape[1:])
        return np.concatenate([heads[:, part].reshape(-1, *values.shape[1:]) for part in range(3)])
    if config.model_type == "gemma3_text" and "norm" in name:
        return values + 1
    if config.model_type in ("llama", "mistral") and ("q_proj" in name or "k_proj" in name):
        count = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        # Each head's two halves, row by row in turn.
        first, second = np.split(values.reshape(count, -1, *values.shape[1:]), 2, axis=1)
        return np.stack([first, second], axis=2).reshape(values.shape)
    return values


def _gated_metadata(writer: GGUFWriter, config: Any) -> None:
    rope: Mapping[str, Any] = config.rope_parameters
    if config.model_type == "gemma3_text":
        rope = rope["full_attention"]
        writer.add_sliding_window(config.sliding_window)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type in ("llama", "mistral"):
        writer.add_rope_dimension_count(head)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(rope, head))


def llama3_divisors(rope: Mapping[str, Any], head: int) -> np.ndarray:
    """What each frequency is divided by, wavelength by wavelength as Llama 3.1's code puts it."""
    frequencies = rope["rope_theta"] ** -(np.arange(0, head, 2) / head)
    divisors = []
    for wavelength in 2 * np.pi / frequencies:
        turns = rope["original_max_position_embeddings"] / wavelength
        if turns > rope["high_freq_factor"]:
            divisors.append(1.0)
        elif turns < rope["low_freq_factor"]:
            divisors.append(rope["factor"])
        else:
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            smooth = (turns - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.asarray(divisors, np.float32)


def _bloom_metadata(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(getattr(config, "seq_length", 256))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _vocabulary(writer: GGUFWriter, pre: str) -> None:
    """The byte tokenizer's tokens, the last one a merge of two of them."""
    tokens = [str(tokenizer().id_to_token(index)) for index in range(VOCABULARY - 1)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*tokens, "th"])
    writer.add_token_types([3 if 256 <= i < VOCABULARY - 1 else 1 for i in range(VOCABULARY)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(0)
