"""BERT (arXiv 1810.04805) as an encoder of texts, pooled as Sentence-BERT does (1908.10084)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.layers.linear import Embedding, Matrix
from inference_workers.layers.texts import Texts, attend_whole, lay
from inference_workers.models.base import EncoderShape, Weights, text_prefix

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
POOLINGS = ("mean", "cls")


class Bert:
    """Learnt positions and types, norms after each part; a text's vector is the mean of its states,
    or its first one, made 1 long."""

    @staticmethod
    def supports(config: Any) -> bool:
        return (
            config.model_type == "bert"
            and not config.is_decoder
            and config.hidden_act in _ACTIVATIONS
            and getattr(config, "position_embedding_type", "absolute") == "absolute"
            and getattr(config, "pooling", "mean") in POOLINGS
        )

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Matrix],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        prefix = text_prefix(tensors, "embeddings.word_embeddings.weight")
        weights = Weights(tensors, prefix, dtype=dtype, device=device)
        given = weights.under("embeddings.")
        size, context = config.hidden_size, config.max_position_embeddings
        self._words = Embedding(given.matrix("word_embeddings.weight", config.vocab_size, size))
        kinds = given.get("token_type_embeddings.weight", config.type_vocab_size, size)
        # All of a text is of the first type.
        self._positions = given.get("position_embeddings.weight", context, size) + kinds[0]
        self._norm = given.layer_norm("LayerNorm", size, config.layer_norm_eps)
        self._layers = [
            BertLayer(config, weights.under(f"encoder.layer.{i}."))
            for i in range(config.num_hidden_layers)
        ]
        self._mean = getattr(config, "pooling", "mean") == "mean"
        self.shape = EncoderShape(
            vocabulary=config.vocab_size,
            context_length=context,
            dimensions=size,
            device=device,
            bytes=self._positions.nbytes
            + self._words.bytes
            + self._norm.bytes
            + sum(layer.bytes for layer in self._layers),
        )

    def embed(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Vectors ``(texts, dimensions)`` of length 1, float32, in the order given."""
        batch = lay(texts, self.shape.device)
        x = self._norm.forward(self._words.forward(batch.tokens) + self._positions[batch.positions])
        for layer in self._layers:
            x = layer.forward(x, batch)
        pooled = self._pool(x.float(), batch)
        return F.normalize(pooled, dim=1).index_select(0, batch.places)

    def _pool(self, x: Tensor, batch: Texts) -> Tensor:
        if not self._mean:
            return x.index_select(0, batch.firsts)
        sums = x.new_zeros(len(batch.lengths), x.shape[1]).index_add_(0, batch.owners, x)
        return sums / batch.lengths[:, None]


class BertLayer:
    def __init__(self, config: Any, weights: Weights) -> None:
        size, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self._heads = config.num_attention_heads
        attention = weights.under("attention.")
        projections = (("query", size), ("key", size), ("value", size))
        self._qkv = attention.under("self.").linear(*projections, inputs=size, bias=True)
        self._out = attention.linear(("output.dense", size), inputs=size, bias=True)
        self._norm1 = attention.layer_norm("output.LayerNorm", size, eps)
        self._up = weights.linear(("intermediate.dense", inner), inputs=size, bias=True)
        self._down = weights.linear(("output.dense", size), inputs=inner, bias=True)
        self._norm2 = weights.layer_norm("output.LayerNorm", size, eps)
        self._activation = _ACTIVATIONS[config.hidden_act]
        parts = (self._qkv, self._out, self._up, self._down, self._norm1, self._norm2)
        self.bytes = sum(part.bytes for part in parts)

    def forward(self, x: Tensor, batch: Texts) -> Tensor:
        seen = attend_whole(self._qkv.forward(x), batch, self._heads)
        x = self._norm1.forward(x + self._out.forward(seen))
        inner = self._activation(self._up.forward(x))
        return self._norm2.forward(x + self._down.forward(inner))
