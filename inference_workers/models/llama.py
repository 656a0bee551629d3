"""LLaMA (arXiv 2302.13971, 2307.09288, 2407.21783) and what shares its architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference_workers.layers.attention import KeyValues, LayerShape, attend, windows
from inference_workers.layers.batch import Batch, Window
from inference_workers.layers.heads import Heads
from inference_workers.layers.linear import Embedding, Head, Matrix
from inference_workers.layers.norm import HeadsNorm, RMSNorm
from inference_workers.layers.rotary import (
    SUPPORTED,
    Rotary,
    Rotation,
    attention_factor,
    frequencies,
)
from inference_workers.models.base import ModelShape, Weights, text_prefix


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """In what a layer of LLaMA's relatives differs from LLaMA's own."""

    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    normed_heads: bool = False
    window: Window = None


class Llama:
    """Grouped heads, rotary positions, gated SiLU; tied or free head; optional biases.

    A relative overrides ``model_type`` and ``options``.
    """

    model_type = "llama"

    @classmethod
    def supports(cls, config: Any) -> bool:
        return (
            config.model_type == cls.model_type
            and config.hidden_act == "silu"
            and config.rope_parameters.get("rope_type", "default") in SUPPORTED
            and config.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0
        )

    @classmethod
    def options(cls, config: Any, layer: int) -> LayerOptions:
        biased = bool(config.attention_bias)
        return LayerOptions(qkv_bias=biased, out_bias=biased, mlp_bias=bool(config.mlp_bias))

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
            LlamaLayer(config, self.options(config, i), weights.under(f"layers.{i}."))
            for i in range(config.num_hidden_layers)
        ]
        head_size = self._layers[0].head_size
        rope = config.rope_parameters
        self._rotary = Rotary(
            frequencies(rope, head_size), dtype, device, factor=attention_factor(rope)
        )
        used = self._embedding.bytes + self._head.bytes + self._norm.bytes
        self.shape = ModelShape(
            vocabulary=config.vocab_size,
            context_length=config.max_position_embeddings,
            layers=tuple(layer.shape for layer in self._layers),
            windows=windows(layer.shape for layer in self._layers),
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
    def __init__(self, config: Any, options: LayerOptions, weights: Weights) -> None:
        size, inner, eps = config.hidden_size, config.intermediate_size, config.rms_norm_eps
        heads = (config.num_attention_heads, config.num_key_value_heads)
        self.head_size = getattr(config, "head_dim", None) or size // heads[0]
        self._window = options.window
        self.shape = LayerShape(heads[1], self.head_size, self.head_size, self._window)
        self._scale = self.head_size**-0.5
        query, key = (count * self.head_size for count in heads)
        attention, mlp = weights.under("self_attn."), weights.under("mlp.")
        projections = (("q_proj", query), ("k_proj", key), ("v_proj", key))
        self._qkv = attention.linear(*projections, inputs=size, bias=options.qkv_bias)
        self._out = attention.linear(("o_proj", size), inputs=query, bias=options.out_bias)
        gates = (("gate_proj", inner), ("up_proj", inner))
        self._gate_up = mlp.linear(*gates, inputs=size, bias=options.mlp_bias)
        self._down = mlp.linear(("down_proj", size), inputs=inner, bias=options.mlp_bias)
        norms: HeadsNorm | None = None
        if options.normed_heads:
            query_scale = attention.get("q_norm.weight", self.head_size)
            key_scale = attention.get("k_norm.weight", self.head_size)
            norms = HeadsNorm(query_scale, key_scale, heads, eps)
        self._split = Heads(*heads, self.head_size, norms)
        self._before_attention = RMSNorm(weights.get("input_layernorm.weight", size), eps)
        self._before_mlp = RMSNorm(weights.get("post_attention_layernorm.weight", size), eps)
        linears = (self._qkv, self._out, self._gate_up, self._down)
        self.bytes = sum(part.bytes for part in linears) + 2 * self._before_mlp.bytes
        self.bytes += norms.bytes if norms else 0

    def forward(self, x: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        x = x + self._attended(x, rotation, batch, store)
        mixed = self._gate_up.gated(self._before_mlp.forward(x), "silu")
        return x + self._down.forward(mixed)

    def _attended(self, x: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        """Apart, so that nothing of it takes memory during the rest of the layer."""
        qkv = self._qkv.forward(self._before_attention.forward(x))
        queries = self._split.place(qkv, rotation, batch, store)
        attended = attend(queries, store, batch, window=self._window, scale=self._scale)
        return self._out.forward(attended)
