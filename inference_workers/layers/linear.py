"""Every projection of every lean model. This file alone decides which kernel multiplies.

On a CPU, bfloat16 weights are packed once for oneDNN: half the time of ``F.linear`` at small
batches, equal at large ones (figures in ARCHITECTURE's design notes: 15 against 26 ms for a
262144 x 640 head at batch 1). Everywhere else ``F.linear`` is used as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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


def _packs(weight: Tensor) -> bool:
    return _BF16_OK and weight.device.type == "cpu" and weight.dtype == torch.bfloat16


class Linear:
    """``y = x W^T + b`` for ``x`` of shape ``(rows, inputs)``; ``W`` is ``(outputs, inputs)``.

    ``adapter_rows`` is reserved for the adapter of each row; there is none yet.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.outputs, self.inputs = weight.shape
        self.bytes = weight.nbytes + (bias.nbytes if bias is not None else 0)
        self._bias = bias
        self._packed = _packs(weight)
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            if self._packed
            else weight.contiguous()
        )

    def forward(self, x: Tensor, adapter_rows: Tensor | None = None) -> Tensor:
        if adapter_rows is not None:
            raise NotImplementedError("adapters are not served yet")
        if self._packed:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, "none", [], ""
            )
            return result
        return F.linear(x, self._weight, self._bias)

    @classmethod
    def fused(cls, weights: list[Tensor], biases: list[Tensor] | None = None) -> Linear:
        """Several projections of one input as a single product; outputs in the order given."""
        return cls(torch.cat(weights), torch.cat(biases) if biases else None)


class Head:
    """The projection to the vocabulary, with the greedy choice made part by part.

    A tied embedding keeps its plain matrix for looking rows up; where the head packs, its packed
    copy counts as memory of its own.
    """

    def __init__(self, weight: Tensor, *, shared: bool) -> None:
        vocabulary = weight.shape[0]
        step = -(-vocabulary // HEAD_PARTS) if _packs(weight) else vocabulary
        step = -(-step // 512) * 512
        starts = range(0, vocabulary, step)
        self._parts = [(start, Linear(weight[start : start + step])) for start in starts]
        self.vocabulary = vocabulary
        self.bytes = 0 if shared and not _packs(weight) else sum(p.bytes for _, p in self._parts)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, vocabulary)`` in the weights' dtype."""
        if len(self._parts) == 1:
            return self._parts[0][1].forward(x)
        logits = x.new_empty((x.shape[0], self.vocabulary))
        for start, part in self._parts:
            logits[:, start : start + part.outputs] = part.forward(x)
        return logits

    def greedy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's largest logit (NaN if any is) and its token, without keeping the logits."""
        best, token = greedy(self._parts[0][1].forward(x))
        for start, part in self._parts[1:]:
            value, index = greedy(part.forward(x))
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
