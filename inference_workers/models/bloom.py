"""BLOOM (arXiv 2211.05100): a penalty for distance in place of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.layers.attention import KeyValues, LayerShape, alibi_slopes, attend
from inference_workers.layers.batch import Batch
from inference_workers.layers.linear import Embedding, Head, Matrix
from inference_workers.models.base import ModelShape, Weights, text_prefix

EMBEDDING = "word_embeddings.weight"
DEFAULT_CONTEXT = 2048
"""Older configurations don't say how long the training texts were."""


class Bloom:
    """ALiBi, fused projections, layer norms (one on the embedding), GELU; any number of heads."""

    @staticmethod
    def supports(config: Any) -> bool:
        # The slow path adds up slices of a product and leaves the bias out: transformers' own.
        return config.model_type == "bloom" and not config.slow_but_exact

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Matrix],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        weights = Weights(tensors, text_prefix(tensors, EMBEDDING), dtype=dtype, device=device)
        size, eps = config.hidden_size, config.layer_norm_epsilon
        embedding = weights.matrix(EMBEDDING, config.vocab_size, size)
        self._embedding = Embedding(embedding)
        head, shared = weights.head(embedding, tied=config.tie_word_embeddings)
        self._head = Head(head, shared=shared)
        self._embedding_norm = weights.layer_norm("word_embeddings_layernorm", size, eps)
        self._norm = weights.layer_norm("ln_f", size, eps)
        self._slopes = alibi_slopes(config.n_head).to(device)
        self._layers = [
            BloomLayer(config, weights.under(f"h.{i}."), self._slopes)
            for i in range(config.n_layer)
        ]
        used = self._embedding.bytes + self._head.bytes
        used += self._embedding_norm.bytes + self._norm.bytes
        self.shape = ModelShape(
            vocabulary=config.vocab_size,
            context_length=getattr(config, "seq_length", DEFAULT_CONTEXT),
            layers=tuple(layer.shape for layer in self._layers),
            windows=(None,),
            dtype=dtype,
            device=device,
            bytes=used + sum(layer.bytes for layer in self._layers),
        )
        self.logits = self._head.forward
        self.greedy = self._head.greedy

    def forward(self, batch: Batch, stores: Sequence[KeyValues]) -> Tensor:
        x = self._embedding_norm.forward(self._embedding.forward(batch.tokens))
        for layer, store in zip(self._layers, stores, strict=True):
            x = layer.forward(x, batch, store)
        return self._norm.forward(x.index_select(0, batch.wanted))


class BloomLayer:
    def __init__(self, config: Any, weights: Weights, slopes: Tensor) -> None:
        size, eps = config.hidden_size, config.layer_norm_epsilon
        self._heads, self._slopes = config.n_head, slopes
        self._head_size = size // self._heads
        self.shape = LayerShape(self._heads, self._head_size, self._head_size)
        self._scale = self._head_size**-0.5
        attention, mlp = weights.under("self_attention."), weights.under("mlp.")
        self._qkv = attention.linear(("query_key_value", 3 * size), inputs=size, bias=True)
        self._out = attention.linear(("dense", size), inputs=size, bias=True)
        self._up = mlp.linear(("dense_h_to_4h", 4 * size), inputs=size, bias=True)
        self._down = mlp.linear(("dense_4h_to_h", size), inputs=4 * size, bias=True)
        self._before_attention = weights.layer_norm("input_layernorm", size, eps)
        self._before_mlp = weights.layer_norm("post_attention_layernorm", size, eps)
        self._normed_residual = config.apply_residual_connection_post_layernorm
        norms = (self._before_attention, self._before_mlp)
        parts = (self._qkv, self._out, self._up, self._down, *norms)
        self.bytes = sum(part.bytes for part in parts)

    def forward(self, x: Tensor, batch: Batch, store: KeyValues) -> Tensor:
        normed = self._before_attention.forward(x)
        # Outputs lie head by head, each with its query, key and value.
        heads = self._qkv.forward(normed).view(x.shape[0], self._heads, 3, self._head_size)
        queries, keys, values = heads.unbind(2)
        store.write(batch.slots, keys, values)
        attended = attend(
            queries, store, batch, window=None, scale=self._scale, slopes=self._slopes
        )
        x = (normed if self._normed_residual else x) + self._out.forward(attended)
        normed = self._before_mlp.forward(x)
        inner = F.gelu(self._up.forward(normed), approximate="tanh")
        return (normed if self._normed_residual else x) + self._down.forward(inner)
