"""A GGUF file becomes an ordinary model folder: safetensors, config, tokenizer.

Quantised matrices keep their codes (``gguf_blocks``), other tensors become bfloat16, and those of
one dimension stay float32: norms are small, and what they were trained to is not rounded.

llama.cpp's converter renames tensors, stores Gemma's norms as ``1 + w`` and interleaves LLaMA's
query and key rows for its rotary embedding. All of that is undone here, so that nothing after this
module needs to know where a model came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_workers.errors import ModelError
from inference_workers.layers.packing import Kind
from inference_workers.models.gguf_blocks import packed, packed_kind
from inference_workers.models.gguf_file import GgufFile, TensorInfo
from inference_workers.models.gguf_tokenizer import build_tokenizer
from inference_workers.models.safetensors_file import Output, to_bf16, write_tensors

Array = npt.NDArray[np.float32]
Progress = Callable[[float, str], None]
MAX_LAYERS = 1024

_SHARED = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True)
class Family:
    """How one GGUF architecture differs: its config and its tensors' names and values."""

    config: Callable[[GgufFile, str], dict[str, Any]]
    names: dict[str, str]
    norm_offset: float = 0.0
    interleaved: bool = False
    """Whether query and key rows were reordered for llama.cpp's rotary embedding."""


def convert(path: Path, out: Path, progress: Progress) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``tokenizer.json`` (and a chat template, if
    the file has one) into the folder ``out``. Needs about 100 MB besides the vocabulary.

    Raises:
        ModelError: the architecture isn't known, or the file is damaged or incomplete.
    """
    try:
        _convert(path, out, progress)
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        raise ModelError(
            f"{path.name} is damaged: its entries make no sense together. Fetch it again.",
            code="corrupt",
        ) from error


def _convert(path: Path, out: Path, progress: Progress) -> None:
    with GgufFile(path) as file:
        architecture = str(file.require("general.architecture"))
        family = FAMILIES.get(architecture)
        if family is None:
            raise ModelError(
                f"{path.name} holds a model of architecture {architecture!r}; GGUF files of "
                f"{', '.join(sorted(FAMILIES))} can be read. Use the model's safetensors "
                "checkpoint instead.",
                code="unknown_architecture",
            )
        config = _config(file, family, architecture)
        tensors = _named_tensors(file, family, config)
        progress(0.0, "Building the tokenizer")
        tokenizer = build_tokenizer(architecture, file.metadata)
        tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        progress(0.2, "Converting the weights")
        total = sum(info.parameters for _, info in tensors) or 1
        done = 0

        def told(name: str, info: TensorInfo, kind: Kind | None) -> Iterator[npt.NDArray[Any]]:
            nonlocal done
            yield from _stored(file, family, config, name, info, kind)
            done += info.parameters
            progress(0.2 + 0.8 * done / total, "Converting the weights")

        outputs = []
        for name, info in tensors:
            kind = packed_kind(info.type_name) if len(info.shape) == 2 else None
            dtype = "F32" if len(info.shape) == 1 else "U8" if kind else "BF16"
            pieces = told(name, info, kind)
            outputs.append(Output(name, dtype, info.shape, pieces, kind.name if kind else ""))
        write_tensors(out / "model.safetensors", outputs)
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        template = file.metadata.get("tokenizer.chat_template")
        if isinstance(template, str) and template:
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _named_tensors(
    file: GgufFile, family: Family, config: dict[str, Any]
) -> list[tuple[str, TensorInfo]]:
    named = []
    for info in file.tensors.values():
        name = _hf_name(info.name, family)
        if name is None:
            raise ModelError(
                f"{file.path.name} holds the tensor {info.name!r}, which this model's layers have "
                "no place for. Use the model's safetensors checkpoint instead.",
                code="unsupported_tensor",
            )
        named.append((name, info))
    layers = {int(m[1]) for name, _ in named if (m := re.match(r"model\.layers\.(\d+)\.", name))}
    if layers != set(range(config["num_hidden_layers"])) or not any(
        name == "model.embed_tokens.weight" for name, _ in named
    ):
        raise ModelError(
            f"{file.path.name} is incomplete: layers or the embedding are missing. Fetch it again.",
            code="missing_weights",
        )
    return named


def _hf_name(name: str, family: Family) -> str | None:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?([a-z0-9_]+)\.(weight|bias)", name)
    if match is None or match[2] not in family.names:
        return None
    prefix = "" if match[1] is None else f"model.layers.{match[1]}."
    return f"{prefix}{family.names[match[2]]}.{match[3]}"


def _stored(
    file: GgufFile,
    family: Family,
    config: dict[str, Any],
    name: str,
    info: TensorInfo,
    kind: Kind | None,
) -> Iterator[npt.NDArray[Any]]:
    """A tensor's bytes as they are written."""
    if kind is not None:
        raw = file.raw(info)
        if family.interleaved and name.endswith(("q_proj.weight", "k_proj.weight")):
            raw = _uninterleave(raw, _heads(config, name))
        yield packed(info.type_name, raw)
        return
    for piece in _values(file, family, config, name, info):
        yield piece if len(info.shape) == 1 else to_bf16(piece)


def _heads(config: dict[str, Any], name: str) -> int:
    queries = name.endswith("q_proj.weight")
    return int(config["num_attention_heads" if queries else "num_key_value_heads"])


def _values(
    file: GgufFile, family: Family, config: dict[str, Any], name: str, info: TensorInfo
) -> Iterator[Array]:
    if family.interleaved and name.endswith(("q_proj.weight", "k_proj.weight")):
        yield _uninterleave(np.concatenate(list(file.rows(info))), _heads(config, name))
        return
    offset = np.float32(family.norm_offset if name.endswith("norm.weight") else 0.0)
    for piece in file.rows(info):
        yield piece - offset if offset else piece


def _uninterleave(values: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    rows, columns = values.shape
    split = values.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows, columns))


def _config(file: GgufFile, family: Family, architecture: str) -> dict[str, Any]:
    key = f"{architecture}."
    heads = int(file.require(key + "attention.head_count"))
    layers = int(file.require(key + "block_count"))
    if not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{layers} layers")
    hidden = int(file.require(key + "embedding_length"))
    config = {
        "hidden_size": hidden,
        "intermediate_size": int(file.require(key + "feed_forward_length")),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": int(file.metadata.get(key + "attention.head_count_kv", heads)),
        "head_dim": int(file.metadata.get(key + "attention.key_length", hidden // max(1, heads))),
        "max_position_embeddings": int(file.require(key + "context_length")),
        "rms_norm_eps": _short_float(file.require(key + "attention.layer_norm_rms_epsilon")),
        "vocab_size": len(file.require("tokenizer.ggml.tokens")),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
        "dtype": "bfloat16",
    }
    return config | family.config(file, architecture)


def _short_float(value: float) -> float:
    """The float32 that the file stores, written as people write it (1e-06, not 9.99…e-07)."""
    return float(str(np.float32(value)))


def _gemma3_config(file: GgufFile, architecture: str) -> dict[str, Any]:
    key = f"{architecture}."
    layers = int(file.require(key + "block_count"))
    head_dim = int(file.require(key + "attention.key_length"))
    full: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": float(file.metadata.get(key + "rope.freq_base", 1e6)),
    }
    if file.metadata.get(key + "rope.scaling.type") == "linear":
        full |= {"rope_type": "linear", "factor": float(file.require(key + "rope.scaling.factor"))}
    # The 27B model (62 layers) alone scales its queries by another number: see llama.cpp's gemma3.
    width = int(file.require(key + "embedding_length"))
    scalar = width // int(file.require(key + "attention.head_count")) if layers == 62 else head_dim
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar,
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


def _llama_config(file: GgufFile, architecture: str) -> dict[str, Any]:
    key = f"{architecture}."
    scaling = file.metadata.get(key + "rope.scaling.type", "none")
    if "rope_freqs.weight" in file.tensors or scaling != "none":
        raise ModelError(
            f"{file.path.name} stretches its context with scaled rotary embeddings, which GGUF "
            "does not describe fully. Use the model's safetensors checkpoint instead.",
            code="unsupported_rope",
        )
    theta = float(file.metadata.get(key + "rope.freq_base", 10000.0))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "attention_bias": False,
        "mlp_bias": False,
    }


FAMILIES = {
    "gemma3": Family(
        config=_gemma3_config,
        norm_offset=1.0,
        names=_SHARED
        | {
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
    ),
    "llama": Family(
        config=_llama_config,
        interleaved=True,
        names=_SHARED | {"ffn_norm": "post_attention_layernorm"},
    ),
}
