"""Small checkpoints written by the tests: real files, random numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from safetensors.numpy import save_file

from inference_workers.models.echo_folder import byte_tokenizer

HIDDEN, HEADS, HEAD_DIM, INNER, LAYERS = 64, 2, 32, 256, 2
LETTERS = "etaoinshrdlu"


def llama_config(**changes: Any) -> dict[str, Any]:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "vocab_size": 258,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "tie_word_embeddings": True,
    }
    return config | changes


def llama_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (258, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
            at + "self_attn.k_proj.weight": (HEAD_DIM, HIDDEN),
            at + "self_attn.v_proj.weight": (HEAD_DIM, HIDDEN),
            at + "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
            at + "mlp.gate_proj.weight": (INNER, HIDDEN),
            at + "mlp.up_proj.weight": (INNER, HIDDEN),
            at + "mlp.down_proj.weight": (HIDDEN, INNER),
            at + "input_layernorm.weight": (HIDDEN,),
            at + "post_attention_layernorm.weight": (HIDDEN,),
        }
    shapes["model.norm.weight"] = (HIDDEN,)
    return {n: draw.normal(0, 0.05, s).astype(np.float32) for n, s in shapes.items()}


def write_llama(folder: Path, *, shards: int = 1, **config: Any) -> Path:
    """A LLaMA of about 200,000 parameters with a byte tokenizer, in ``shards`` weight files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(llama_config(**config)))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    tensors = llama_tensors()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    placed: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {n: t for i, (n, t) in enumerate(tensors.items()) if i % shards == shard}
        save_file(part, folder / name)
        placed |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_gemma_gguf(path: Path, *, skip: str = "", kind: str = "Q8_0") -> Path:
    """A two-layer Gemma 3 as GGUF, its matrices quantised as ``kind``, with a small vocabulary."""
    writer = GGUFWriter(path, "gemma3")
    tokens = gemma_tokens()
    _gemma_metadata(writer, tokens)
    draw = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(tokens), HIDDEN)}
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        shapes |= {
            at + "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            at + "attn_k": (HEAD_DIM, HIDDEN),
            at + "attn_v": (HEAD_DIM, HIDDEN),
            at + "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            at + "ffn_gate": (INNER, HIDDEN),
            at + "ffn_up": (INNER, HIDDEN),
            at + "ffn_down": (HIDDEN, INNER),
        }
        norms = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
        shapes |= {at + name: (HIDDEN,) for name in norms}
        shapes |= {at + name: (HEAD_DIM,) for name in ("attn_q_norm", "attn_k_norm")}
    shapes["output_norm"] = (HIDDEN,)
    for name, shape in shapes.items():
        values = draw.normal(0, 0.05, shape).astype(np.float32)
        if skip and skip in name:
            continue
        quantised = GGMLQuantizationType[kind]
        if len(shape) == 1 or kind == "F32":
            writer.add_tensor(f"{name}.weight", values)
        else:
            writer.add_tensor(f"{name}.weight", quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gemma_tokens() -> list[str]:
    """Specials, bytes, spaces, letters and some words, in the order that implies the merges."""
    words = ["th", "he", "the", "in", "an", "and", "\u2581the", "\u2581a", "ing", "ed", "\u2581and"]
    single = [*LETTERS, "b", "g", "\u2581", "你", "好", "你好"]
    fixed = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "\n\n", "  ", "   "]
    return [*fixed, *(f"<0x{b:02X}>" for b in range(256)), *words, *single]


def _gemma_metadata(writer: GGUFWriter, tokens: list[str]) -> None:
    writer.add_context_length(1024)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(16)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    types = {"<pad>": 3, "<eos>": 3, "<bos>": 3, "<unk>": 2, "<mask>": 4, "\n": 4, "\n\n": 4}
    writer.add_token_types([types.get(t, 6 if t.startswith("<0x") else 1) for t in tokens])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
