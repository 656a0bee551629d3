"""Gemma 3, text (arXiv 2503.19786): local and global layers, normalised queries and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference_workers.layers.attention import KeyValues, LayerShape, attend, windows
from inference_workers.layers.batch import Batch, Window
from inference_workers.layers.heads import Heads
from inference_workers.layers.linear import Embedding, Head, Linear, Matrix
from inference_workers.layers.norm import HeadsNorm, RMSNorm
from inference_workers.layers.rotary import SUPPORTED, Rotary, Rotation, frequencies
from inference_workers.models.base import ModelShape, Weights, text_prefix

_WINDOWED = "sliding_attention"


class Gemma3:
    """Norms before and after each part, scaled embeddings, two rotary bases, a tied head."""

    @staticmethod
    def supports(config: Any) -> bool:
        config = _text(config)
        return (
            config.model_type == "gemma3_text"
            and config.hidden_activation == "gelu_pytorch_tanh"
            and not config.attn_logit_softcapping
            and not config.final_logit_softcapping
            and not getattr(config, "use_bidirectional_attention", False)
            and all(
                rope.get("rope_type", "default") in SUPPORTED
                for rope in config.rope_parameters.values()
            )
        )

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Matrix],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        config = _text(config)
        weights = Weights(tensors, text_prefix(tensors), dtype=dtype, device=device)
        size, eps = config.hidden_size, config.rms_norm_eps
        embedding = weights.matrix("embed_tokens.weight", config.vocab_size, size)
        # Rounded as transformers does: the factor is a number of the weights' dtype.
        factor = torch.tensor(size**0.5, dtype=dtype, device=device)
        self._embedding = Embedding(embedding, factor)
        head, shared = weights.head(embedding, tied=config.tie_word_embeddings)
        self._head = Head(head, shared=shared)
        self._norm = RMSNorm(weights.get("norm.weight", size), eps, offset=1)
        kinds = config.layer_types[: config.num_hidden_layers]
        self._layers = [
            Gemma3Layer(config, kind, weights.under(f"layers.{i}.")) for i, kind in enumerate(kinds)
        ]
        self._rotary = {
            kind: Rotary(frequencies(rope, config.head_dim), dtype, device)
            for kind, rope in config.rope_parameters.items()
            if kind in kinds
        }
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
        rotations = {
            kind: rotary.at(batch.positions, batch.longest) for kind, rotary in self._rotary.items()
        }
        for layer, store in zip(self._layers, stores, strict=True):
            x = layer.forward(x, rotations[layer.kind], batch, store)
        return self._norm.forward(x.index_select(0, batch.wanted))


class Gemma3Layer:
    def __init__(self, config: Any, kind: str, weights: Weights) -> None:
        size, inner, eps = config.hidden_size, config.intermediate_size, config.rms_norm_eps
        self.kind = kind
        self._window: Window = config.sliding_window if kind == _WINDOWED else None
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_size = config.head_dim
        self.shape = LayerShape(self._key_heads, self._head_size, self._head_size, self._window)
        self._scale = config.query_pre_attn_scalar**-0.5
        query, key = self._heads * self._head_size, self._key_heads * self._head_size

        def linear(name: str, *outputs: tuple[str, int], inputs: int, bias: bool) -> Linear:
            parts = weights.under(name)
            biases = [parts.get(f"{n}.bias", rows) for n, rows in outputs] if bias else None
            return Linear.fused(
                [parts.matrix(f"{n}.weight", r, inputs) for n, r in outputs], biases
            )

        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights.get(f"{name}.weight", size), eps, offset=1)

        biased = bool(config.attention_bias)
        projections = (("q_proj", query), ("k_proj", key), ("v_proj", key))
        self._qkv = linear("self_attn.", *projections, inputs=size, bias=biased)
        self._out = linear("self_attn.", ("o_proj", size), inputs=query, bias=biased)
        gates = (("gate_proj", inner), ("up_proj", inner))
        self._gate_up = linear("mlp.", *gates, inputs=size, bias=False)
        self._down = linear("mlp.", ("down_proj", size), inputs=inner, bias=False)
        query_scale, key_scale = (
            weights.get(f"self_attn.{name}_norm.weight", self._head_size) for name in ("q", "k")
        )
        heads = (self._heads, self._key_heads)
        norms = HeadsNorm(query_scale, key_scale, heads, eps, offset=1)
        self._split = Heads(*heads, self._head_size, norms)
        self._before_attention = norm("input_layernorm")
        self._after_attention = norm("post_attention_layernorm")
        self._before_mlp = norm("pre_feedforward_layernorm")
        self._after_mlp = norm("post_feedforward_layernorm")
        parts = (self._qkv, self._out, self._gate_up, self._down, norms)
        self.bytes = sum(part.bytes for part in parts) + 4 * self._before_mlp.bytes

    def forward(self, x: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        x = self._after_attention.forward(self._attended(x, rotation, batch, store), onto=x)
        mixed = self._gate_up.gated(self._before_mlp.forward(x), "gelu_tanh")
        return self._after_mlp.forward(self._down.forward(mixed), onto=x)

    def _attended(self, x: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        """Apart, so that nothing of it takes memory during the rest of the layer."""
        qkv = self._qkv.forward(self._before_attention.forward(x))
        queries = self._split.place(qkv, rotation, batch, store)
        attended = attend(queries, store, batch, window=self._window, scale=self._scale)
        return self._out.forward(attended)


def _text(config: Any) -> Any:
    """The text part of a multimodal checkpoint's configuration."""
    return config.text_config if config.model_type == "gemma3" else config
