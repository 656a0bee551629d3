"""Every projection of every lean model. This file alone decides which kernel multiplies.

packed weights, a CPU with AVX2, kernels built     our own kernels, on float32 activations
bfloat16 weights, a CPU that multiplies bfloat16   oneDNN, weights packed once: half the time of
                                                   ``F.linear`` at small batches
anything else                                      ``F.linear``, packed weights made dense
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.layers.activation import Gate, gated
from inference_workers.layers.masks import Masks, forbid
from inference_workers.layers.packing import ROWS, Floats, Kind, unpack, unpacked_rows
from inference_workers.native import Kernels, Part, kernels

_BF16_OK: bool = torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether this CPU multiplies bfloat16 itself (AVX-512 and later)."""
HEAD_PARTS = 4
"""The head's vocabulary is multiplied in this many parts: a part's logits stay in the cache until
their maximum is known (62 instead of 103 ms for 64 greedy rows of a 262144 x 640 head)."""


def compute_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """In which dtype to serve weights of dtype ``stored``: float32 where the processor has no
    arithmetic for them (a product of bfloat16 takes 4 to 7 times longer than of float32 there)."""
    if device.type == "cpu" and (stored == torch.float16 or not _BF16_OK):
        return torch.float32
    return stored


def packed_dtype(device: torch.device) -> torch.dtype:
    """In which dtype to serve packed weights."""
    if device.type == "cpu" and kernels() is not None:
        return torch.float32
    return compute_dtype(torch.bfloat16, device)


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed matrix of ``rows`` by ``columns`` weights; ``data`` is uint8, see ``packing``."""

    kind: Kind
    data: Tensor
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def dense(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        values = unpack(self.kind, self.data.numpy(), self.rows, self.columns)
        return torch.from_numpy(values).to(device=device, dtype=dtype)

    def rows_between(self, start: int, stop: int) -> Floats:
        """Some of the weights in float32; ``start`` is a multiple of 16."""
        return unpacked_rows(self.kind, self.data.numpy(), *self.shape, start, stop)

    def part(self, at: int = 0) -> Part:
        """For the kernels; ``at`` is where its outputs begin. Keep ``data`` as long as it."""
        first = self.data.data_ptr()
        tiles = -(-self.rows // ROWS) * (self.columns // 32)
        second = first + tiles * self.kind.first
        return Part(self.kind.number, self.rows, self.columns, at, first, second)


Matrix = Tensor | Packed


def stays_packed(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether packed weights are used as they are; otherwise they are made dense once."""
    return device.type == "cpu" and dtype == torch.float32 and kernels() is not None


def _packs(weight: Tensor) -> bool:
    return _BF16_OK and weight.device.type == "cpu" and weight.dtype == torch.bfloat16


class Linear:
    """``y = x W^T + b`` for ``x`` of shape ``(rows, inputs)``; ``W`` is ``(outputs, inputs)``.

    ``adapter_rows`` is reserved for the adapter of each row; there is none yet.
    """

    def __init__(self, weight: Matrix | Sequence[Matrix], bias: Tensor | None = None) -> None:
        weights = [weight] if isinstance(weight, Tensor | Packed) else list(weight)
        self.outputs = sum(w.shape[0] for w in weights)
        self.inputs = int(weights[0].shape[1])
        self._bias = bias
        self._packed: PackedProduct | None = None
        if all(isinstance(w, Packed) for w in weights):
            self._packed = PackedProduct([w for w in weights if isinstance(w, Packed)])
            self.bytes = self._packed.bytes
        else:
            dense = [_dense(w, like=weights) for w in weights]
            matrix = dense[0] if len(dense) == 1 else torch.cat(dense)
            self.bytes = matrix.nbytes
            self._reordered = _packs(matrix)
            self._weight = (
                torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous())
                if self._reordered
                else matrix.contiguous()
            )
        self.bytes += bias.nbytes if bias is not None else 0

    def forward(self, x: Tensor, adapter_rows: Tensor | None = None) -> Tensor:
        if adapter_rows is not None:
            raise NotImplementedError("adapters are not served yet")
        if self._packed is not None:
            return self._packed.forward(x, self._bias)
        if self._reordered:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, "none", [], ""
            )
            return result
        return F.linear(x, self._weight, self._bias)

    def gated(self, x: Tensor, gate: Gate) -> Tensor:
        """``act(gates) * others`` of the two halves of its outputs, ``(rows, outputs / 2)``."""
        if self._packed is not None and self._packed.halves and self._bias is None:
            return self._packed.gated(x, gate)
        return gated(self.forward(x), gate)

    @property
    def packed(self) -> tuple[Packed, ...]:
        """Its matrices, where they are multiplied as they are packed."""
        return () if self._packed is None else self._packed.weights

    def with_weights(self, weights: Sequence[Matrix]) -> Linear:
        """The same projection by other matrices."""
        return Linear(weights, self._bias)

    @classmethod
    def fused(cls, weights: Sequence[Matrix], biases: Sequence[Tensor] | None = None) -> Linear:
        """Several projections of one input as a single product; outputs in the order given."""
        return cls(weights, torch.cat(list(biases)) if biases else None)


def _dense(weight: Matrix, *, like: Sequence[Matrix]) -> Tensor:
    if isinstance(weight, Tensor):
        return weight
    other = next(w for w in like if isinstance(w, Tensor))
    return weight.dense(other.dtype, other.device)


class PackedProduct:
    """Products with packed matrices of one input by our own kernels, on float32 rows.

    Rows become signed bytes with a scale for each 32 of them on the way (llama.cpp's Q8_0). A
    row's result does not depend on the other rows.
    """

    def __init__(self, weights: Sequence[Packed]) -> None:
        found = kernels()
        assert found is not None, "packed weights without kernels"
        self._kernels: Kernels = found
        self.weights = tuple(weights)
        self.inputs = weights[0].columns
        self.outputs = 0
        parts = []
        for weight in weights:
            parts.append(weight.part(self.outputs))
            self.outputs += weight.rows
        self._parts = (Part * len(parts))(*parts)
        self._address = ctypes.addressof(self._parts)
        self._work = self.inputs * self.outputs
        self.bytes = sum(weight.nbytes for weight in weights)
        self.halves = [weight.rows for weight in weights] == [self.outputs // 2] * 2

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x.contiguous()
        rows = x.shape[0]
        out = torch.empty((rows, self.outputs))
        failed = self._kernels.to(rows * self._work).lm_linear(
            x.data_ptr(), rows, self.inputs, self._address, len(self._parts),
            None if bias is None else bias.data_ptr(), out.data_ptr(), self.outputs,
        )  # fmt: skip
        if failed:
            raise MemoryError
        return out

    def gated(self, x: Tensor, gate: Gate) -> Tensor:
        """As ``Linear.gated``, of two matrices of one shape: what is gated is never written."""
        x = x.contiguous()
        rows = x.shape[0]
        out = torch.empty((rows, self.outputs // 2))
        failed = self._kernels.to(rows * self._work).lm_gated_linear(
            x.data_ptr(), rows, self.inputs, self._address, gate == "gelu_tanh", out.data_ptr()
        )
        if failed:
            raise MemoryError
        return out

    def greedy(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        """Each row's largest output that its mask allows, and its index, of a single matrix."""
        x = x.contiguous()
        rows = x.shape[0]
        best, token = torch.empty(rows), torch.empty(rows, dtype=torch.int64)
        kept = [None if mask is None else np.ascontiguousarray(mask) for mask in masks or ()]
        words = min((mask.size for mask in kept if mask is not None), default=0)
        places = (ctypes.c_void_p * rows)(*(None if m is None else m.ctypes.data for m in kept))
        failed = self._kernels.long.lm_greedy(
            x.data_ptr(), rows, self.inputs, self._address, places if words else None, words,
            best.data_ptr(), token.data_ptr(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        return best, token

    def look_up(self, tokens: Tensor, factor: float) -> Tensor:
        """Rows of a single matrix, times ``factor``."""
        out = torch.empty((tokens.shape[0], self.inputs))
        self._kernels.short.lm_look_up(
            self._address, tokens.data_ptr(), tokens.shape[0], factor, out.data_ptr()
        )
        return out


class Embedding:
    """Rows of a matrix by token, times ``factor``."""

    def __init__(self, weight: Matrix, factor: Tensor | None = None) -> None:
        self.weight = weight
        self.bytes = weight.nbytes
        self._factor = factor
        self._scalar = 1.0 if factor is None else float(factor)
        self._packed = PackedProduct([weight]) if isinstance(weight, Packed) else None

    def forward(self, tokens: Tensor) -> Tensor:
        if self._packed is not None:
            return self._packed.look_up(tokens, self._scalar)
        assert isinstance(self.weight, Tensor)
        rows = self.weight[tokens]
        return rows if self._factor is None else rows * self._factor


class Head:
    """The projection to the vocabulary, with the greedy choice made part by part.

    A tied embedding keeps its plain matrix for looking rows up; where the head is reordered for
    oneDNN, that copy counts as memory of its own.
    """

    def __init__(self, weight: Matrix, *, shared: bool) -> None:
        self.vocabulary = int(weight.shape[0])
        self.bytes = 0
        self._packed: PackedProduct | None = None
        self._parts: list[tuple[int, Linear]] = []
        if isinstance(weight, Packed):
            self._packed = PackedProduct([weight])
            self.bytes = 0 if shared else weight.nbytes
            return
        step = -(-self.vocabulary // HEAD_PARTS) if _packs(weight) else self.vocabulary
        step = -(-step // 512) * 512
        starts = range(0, self.vocabulary, step)
        self._parts = [(start, Linear(weight[start : start + step])) for start in starts]
        if not shared or _packs(weight):
            self.bytes = sum(part.bytes for _, part in self._parts)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, vocabulary)`` in the weights' dtype."""
        if self._packed is not None:
            return self._packed.forward(x)
        if len(self._parts) == 1:
            return self._parts[0][1].forward(x)
        logits = x.new_empty((x.shape[0], self.vocabulary))
        for start, part in self._parts:
            logits[:, start : start + part.outputs] = part.forward(x)
        return logits

    def greedy(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        """Each row's largest logit among the tokens that its mask allows (NaN if any is, minus
        infinity if there are none) and its token, without keeping the logits."""
        if self._packed is not None:
            return self._packed.greedy(x, masks)

        def choose(start: int, part: Linear) -> tuple[Tensor, Tensor]:
            logits = part.forward(x)
            forbid(logits, masks or (), start)
            return greedy(logits)

        best, token = choose(*self._parts[0])
        for start, part in self._parts[1:]:
            value, index = choose(start, part)
            # Written so that NaN wins and, on a tie, the smaller token stays.
            better = ~(value <= best) & ~best.isnan()
            best = torch.where(better, value, best)
            token = torch.where(better, index + start, token)
        return best, token


def greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value and its first index in each row of ``(rows, vocabulary)``.

    ``amax`` is vectorised where ``argmax`` is not: blocks of 512 are reduced first, then the best
    block alone is searched (10 times faster for 262144 columns on a CPU).
    """
    rows, columns = logits.shape
    if columns % 512 or logits.device.type != "cpu":
        index = logits.argmax(-1)
        return logits.gather(1, index[:, None])[:, 0], index
    blocks = logits.view(rows, columns // 512, 512)
    best, block = _first_max(blocks.amax(-1))
    row = blocks[torch.arange(rows, device=logits.device), block]
    return best, block * 512 + row.argmax(-1)


def _first_max(values: Tensor) -> tuple[Tensor, Tensor]:
    index = values.argmax(-1)
    return values.gather(1, index[:, None])[:, 0], index
