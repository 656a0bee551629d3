"""What the engine asks of a model, and how model files read their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inference_workers.errors import ModelError
from inference_workers.layers.attention import KeyValues, LayerShape
from inference_workers.layers.batch import Batch, Window
from inference_workers.layers.linear import Linear, Matrix, Packed, stays_packed
from inference_workers.layers.masks import Masks
from inference_workers.layers.norm import LayerNorm


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the cache and the checks of requests need to know.

    ``windows`` are the attention windows for which batches prepare views of the cache, the longest
    (``None``: everything) first so that shorter ones can share it. ``bytes`` counts packed copies.
    ``deterministic``: a row's logits are the same bit by bit whatever is computed beside it and in
    whatever chunks.
    """

    vocabulary: int
    context_length: int
    layers: tuple[LayerShape, ...]
    windows: tuple[Window, ...]
    dtype: torch.dtype
    device: torch.device
    bytes: int
    halves_cached: bool = False
    deterministic: bool = False

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of keys and values: float16 where the kernels read that and the weights are packed."""
        return torch.float16 if self.halves_cached else self.dtype

    def token_bytes(self) -> int:
        """Cache memory of one token."""
        return sum(layer.values() for layer in self.layers) * self.cache_dtype.itemsize


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """What an encoder's engine needs to know: ``dimensions`` is how long a vector is, ``bytes``
    counts the weights in memory."""

    vocabulary: int
    context_length: int
    dimensions: int
    device: torch.device
    bytes: int


class CausalModel(Protocol):
    """One loaded model. ``forward`` returns states of the batch's wanted rows, which ``logits`` or
    ``greedy`` turn into answers, the latter among the tokens that masks allow; keys and values go
    into the stores, one a layer."""

    @property
    def shape(self) -> ModelShape: ...

    def forward(self, batch: Batch, stores: Sequence[KeyValues]) -> Tensor: ...

    def logits(self, states: Tensor) -> Tensor: ...

    def greedy(self, states: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]: ...


class Encoder(Protocol):
    """One loaded encoder. ``embed`` makes a vector of length 1 of each text of token ids,
    ``(texts, dimensions)`` in float32; each has at least one token and at most the context's."""

    @property
    def shape(self) -> EncoderShape: ...

    def embed(self, texts: Sequence[Sequence[int]]) -> Tensor: ...


class Weights:
    """Named tensors under a prefix; a missing or misshapen one is a ``ModelError`` naming it."""

    def __init__(
        self,
        tensors: Mapping[str, Matrix],
        prefix: str,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self.dtype = dtype
        self.device = device

    def get(self, name: str, *shape: int) -> Tensor:
        """The tensor ``prefix + name``; ``shape`` is what the configuration promises."""
        found = self.find(name, *shape)
        if found is None:
            raise ModelError(
                f"The weights have no tensor {self._prefix + name!r}. The checkpoint is incomplete "
                "or belongs to another architecture: prepare the model again from its source."
            )
        return found

    def find(self, name: str, *shape: int) -> Tensor | None:
        """As ``get``; ``None`` when there is none."""
        full = self._prefix + name
        if full not in self._tensors:
            return None
        tensor = self._tensors[full]
        self._check(full, tensor.shape, shape)
        if isinstance(tensor, Packed):
            return tensor.dense(self.dtype, self.device)
        return tensor.to(device=self.device, dtype=self.dtype)

    def _check(self, name: str, shape: Sequence[int], promised: Sequence[int]) -> None:
        if tuple(shape) != tuple(promised):
            raise ModelError(
                f"The tensor {name!r} has shape {tuple(shape)}, but the configuration says "
                f"{tuple(promised)}. They belong to different checkpoints: prepare the model again."
            )

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """As ``get``, for a matrix that is multiplied; packed weights stay packed if they can."""
        found = self._tensors.get(self._prefix + name)
        if not isinstance(found, Packed):
            return self.get(name, rows, columns)
        self._check(self._prefix + name, found.shape, (rows, columns))
        if stays_packed(self.dtype, self.device):
            return found
        return found.dense(self.dtype, self.device)

    def linear(self, *outputs: tuple[str, int], inputs: int, bias: bool) -> Linear:
        """The projections ``(name, rows)`` of one input as a single product."""
        biases = [self.get(f"{name}.bias", rows) for name, rows in outputs] if bias else None
        weights = [self.matrix(f"{name}.weight", rows, inputs) for name, rows in outputs]
        return Linear.fused(weights, biases)

    def layer_norm(self, name: str, size: int, eps: float, *, learnt: bool = True) -> LayerNorm:
        """The norm ``name``, with scale and shift where they are ``learnt``."""
        scale = self.get(f"{name}.weight", size) if learnt else None
        return LayerNorm(size, scale, self.get(f"{name}.bias", size) if learnt else None, eps)

    def under(self, prefix: str) -> Weights:
        return Weights(self._tensors, self._prefix + prefix, dtype=self.dtype, device=self.device)

    def head(self, embedding: Matrix, *, tied: bool) -> tuple[Matrix, bool]:
        """The vocabulary's projection, and whether it shares the embedding's matrix."""
        name = "lm_head.weight"
        root = next((k for k in self._tensors if k.endswith(name)), None)
        if tied or root is None:
            if not tied:
                raise ModelError(f"The weights have no tensor {name!r}: prepare the model again.")
            return embedding, True
        return Weights(
            self._tensors, root[: -len(name)], dtype=self.dtype, device=self.device
        ).matrix(name, *embedding.shape), False


def text_prefix(tensors: Mapping[str, Matrix], key: str = "embed_tokens.weight") -> str:
    """What precedes the embedding ``key``: ``model.``, ``language_model.model.`` and the like."""
    for name in tensors:
        if name.endswith(key):
            return name[: -len(key)]
    raise ModelError(
        f"The weights have no tensor ending in {key!r}. The checkpoint is incomplete or belongs to "
        "another architecture: prepare the model again from its source."
    )
