"""LLaMA (arXiv 2302.13971, 2307.09288, 2407.21783) and what shares its architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference_workers.layers.activation import gated
from inference_workers.layers.attention import KeyValues, LayerShape, attend
from inference_workers.layers.batch import Batch
from inference_workers.layers.heads import Heads
from inference_workers.layers.linear import Embedding, Head, Linear, Matrix
from inference_workers.layers.norm import RMSNorm
from inference_workers.layers.rotary import SUPPORTED, Rotary, Rotation, frequencies
from inference_workers.models.base import ModelShape, Weights, text_prefix


class Llama:
    """Grouped heads, rotary positions, gated SiLU; tied or free head; optional biases."""

    @staticmethod
    def supports(config: Any) -> bool:
        return (
            config.model_type == "llama"
            and config.hidden_act == "silu"
            and config.rope_parameters.get("rope_type", "default") in SUPPORTED
            and config.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0
        )

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Matrix],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        weights = Weights(tensors, text_prefix(tensors), dtype=dtype, device=device)
        size = config.hidden_size
        embedding = weights.matrix("embed_tokens.weight", config.vocab_size, size)
        self._embedding = Embedding(embedding)
        head, shared = weights.head(embedding, tied=config.tie_word_embeddings)
        self._head = Head(head, shared=shared)
        self._norm = RMSNorm(weights.get("norm.weight", size), config.rms_norm_eps)
        self._layers = [
            LlamaLayer(config, weights.under(f"layers.{i}."))
            for i in range(config.num_hidden_layers)
        ]
        head_size = self._layers[0].head_size
        self._rotary = Rotary(frequencies(config.rope_parameters, head_size), dtype, device)
        used = self._embedding.bytes + self._head.bytes + self._norm.bytes
        self.shape = ModelShape(
            vocabulary=config.vocab_size,
            context_length=config.max_position_embeddings,
            layers=tuple(layer.shape for layer in self._layers),
            windows=(None,),
            dtype=dtype,
            device=device,
            bytes=used + sum(layer.bytes for layer in self._layers),
        )
        self.logits = self._head.forward
        self.greedy = self._head.greedy

    def forward(self, batch: Batch, stores: Sequence[KeyValues]) -> Tensor:
        x = self._embedding.forward(batch.tokens)
        rotation = self._rotary.at(batch.positions, batch.longest)
        for layer, store in zip(self._layers, stores, strict=True):
            x = layer.forward(x, rotation, batch, store)
        return self._norm.forward(x.index_select(0, batch.wanted))


class LlamaLayer:
    def __init__(self, config: Any, weights: Weights) -> None:
        size, inner = config.hidden_size, config.intermediate_size
        self._heads = config.num_attention_heads
        self._key_heads = config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or size // self._heads
        self._split = Heads(self._heads, self._key_heads, self.head_size)
        self.shape = LayerShape(self._key_heads, self.head_size, self.head_size)
        self._scale = self.head_size**-0.5
        query, key = self._heads * self.head_size, self._key_heads * self.head_size

        def linear(name: str, *outputs: tuple[str, int], inputs: int, bias: bool) -> Linear:
            parts = weights.under(name)
            biases = [parts.get(f"{n}.bias", rows) for n, rows in outputs] if bias else None
            return Linear.fused(
                [parts.matrix(f"{n}.weight", r, inputs) for n, r in outputs], biases
            )

        biased = bool(config.attention_bias)
        projections = (("q_proj", query), ("k_proj", key), ("v_proj", key))
        self._qkv = linear("self_attn.", *projections, inputs=size, bias=biased)
        self._out = linear("self_attn.", ("o_proj", size), inputs=query, bias=biased)
        biased = bool(config.mlp_bias)
        gates = (("gate_proj", inner), ("up_proj", inner))
        self._gate_up = linear("mlp.", *gates, inputs=size, bias=biased)
        self._down = linear("mlp.", ("down_proj", size), inputs=inner, bias=biased)
        eps = config.rms_norm_eps
        self._before_attention = RMSNorm(weights.get("input_layernorm.weight", size), eps)
        self._before_mlp = RMSNorm(weights.get("post_attention_layernorm.weight", size), eps)
        linears = (self._qkv, self._out, self._gate_up, self._down)
        self.bytes = sum(part.bytes for part in linears) + 2 * self._before_mlp.bytes

    def forward(self, x: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        qkv = self._qkv.forward(self._before_attention.forward(x))
        queries = self._split.place(qkv, rotation, batch, store)
        attended = attend(queries, store, batch, window=None, scale=self._scale)
        x = x + self._out.forward(attended)
        mixed = gated(self._gate_up.forward(self._before_mlp.forward(x)), "silu")
        return x + self._down.forward(mixed)
