"""OPT (arXiv 2205.01068), with the 350M variant's late norms and narrower embedding; Galactica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.layers.attention import KeyValues, LayerShape, attend
from inference_workers.layers.batch import Batch
from inference_workers.layers.linear import Embedding, Head, Matrix
from inference_workers.models.base import ModelShape, Weights, text_prefix

EPS = 1e-5
OFFSET = 2
"""The position table's first rows stood for padding once, and are never looked up."""
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class Opt:
    """Learnt positions, layer norms before each part (after it in the 350M variant), ReLU."""

    @staticmethod
    def supports(config: Any) -> bool:
        return config.model_type == "opt" and config.activation_function in _ACTIVATIONS

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Matrix],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        weights = Weights(tensors, text_prefix(tensors), dtype=dtype, device=device)
        size, narrow = config.hidden_size, config.word_embed_proj_dim
        rows = config.max_position_embeddings + OFFSET
        embedding = weights.matrix("embed_tokens.weight", config.vocab_size, narrow)
        self._embedding = Embedding(embedding)
        self._positions = weights.get("embed_positions.weight", rows, size)
        head, shared = weights.head(embedding, tied=config.tie_word_embeddings)
        self._head = Head(head, shared=shared)
        self._project_in = self._project_out = self._norm = None
        if narrow != size:
            self._project_in = weights.linear(("project_in", size), inputs=narrow, bias=False)
            self._project_out = weights.linear(("project_out", narrow), inputs=size, bias=False)
        if config.do_layer_norm_before and not config._remove_final_layer_norm:
            learnt = config.layer_norm_elementwise_affine
            self._norm = weights.layer_norm("final_layer_norm", size, EPS, learnt=learnt)
        self._layers = [
            OptLayer(config, weights.under(f"layers.{i}.")) for i in range(config.num_hidden_layers)
        ]
        parts = (self._head, self._project_in, self._project_out, self._norm, *self._layers)
        used = self._embedding.bytes + self._positions.nbytes
        self.shape = ModelShape(
            vocabulary=config.vocab_size,
            context_length=config.max_position_embeddings,
            layers=tuple(layer.shape for layer in self._layers),
            windows=(None,),
            dtype=dtype,
            device=device,
            bytes=used + sum(part.bytes for part in parts if part is not None),
        )
        self.logits = self._head.forward
        self.greedy = self._head.greedy

    def forward(self, batch: Batch, stores: Sequence[KeyValues]) -> Tensor:
        x = self._embedding.forward(batch.tokens)
        if self._project_in is not None:
            x = self._project_in.forward(x)
        x = x + self._positions[batch.positions + OFFSET]
        for layer, store in zip(self._layers, stores, strict=True):
            x = layer.forward(x, batch, store)
        x = x.index_select(0, batch.wanted)
        if self._norm is not None:
            x = self._norm.forward(x)
        return x if self._project_out is None else self._project_out.forward(x)


class OptLayer:
    def __init__(self, config: Any, weights: Weights) -> None:
        size, inner, bias = config.hidden_size, config.ffn_dim, config.enable_bias
        self._heads = config.num_attention_heads
        self._head_size = size // self._heads
        self.shape = LayerShape(self._heads, self._head_size, self._head_size)
        self._scale = self._head_size**-0.5
        attention = weights.under("self_attn.")
        projections = (("q_proj", size), ("k_proj", size), ("v_proj", size))
        self._qkv = attention.linear(*projections, inputs=size, bias=bias)
        self._out = attention.linear(("out_proj", size), inputs=size, bias=bias)
        self._up = weights.linear(("fc1", inner), inputs=size, bias=bias)
        self._down = weights.linear(("fc2", size), inputs=inner, bias=bias)
        learnt = config.layer_norm_elementwise_affine
        self._norm1 = weights.layer_norm("self_attn_layer_norm", size, EPS, learnt=learnt)
        self._norm2 = weights.layer_norm("final_layer_norm", size, EPS, learnt=learnt)
        self._early = config.do_layer_norm_before
        self._activation = _ACTIVATIONS[config.activation_function]
        parts = (self._qkv, self._out, self._up, self._down, self._norm1, self._norm2)
        self.bytes = sum(part.bytes for part in parts)

    def forward(self, x: Tensor, batch: Batch, store: KeyValues) -> Tensor:
        qkv = self._qkv.forward(self._norm1.forward(x) if self._early else x)
        heads = qkv.view(x.shape[0], -1, self._head_size)
        queries, keys, values = heads.chunk(3, 1)
        store.write(batch.slots, keys, values)
        x = x + self._out.forward(attend(queries, store, batch, window=None, scale=self._scale))
        if not self._early:
            x = self._norm1.forward(x)
        inner = self._up.forward(self._norm2.forward(x) if self._early else x)
        x = x + self._down.forward(self._activation(inner))
        return x if self._early else self._norm2.forward(x)
