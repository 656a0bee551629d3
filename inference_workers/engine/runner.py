"""Owns the device and the K/V tensors: a step's work in, states of the wanted rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_workers.engine.request import Request
from inference_workers.layers.attention import allocate, kernels_attend
from inference_workers.layers.batch import Segment, build
from inference_workers.models.base import CausalModel
from inference_workers.native import set_threads


@dataclass(frozen=True, slots=True)
class Work:
    """``count`` tokens of a request; ``scored`` are positions whose successor in the prompt is to
    be scored, ``sampled`` whether the last row is to give the next token."""

    request: Request
    count: int
    scored: range
    sampled: bool

    def segment(self) -> Segment:
        request, start = self.request, self.request.computed
        wanted = [position - start for position in self.scored]
        if self.sampled:
            wanted.append(self.count - 1)
        tokens = request.tokens[start : start + self.count]
        return Segment(tokens, start, request.blocks, wanted)


class Runner:
    """One model and its cache of ``blocks`` blocks."""

    def __init__(self, model: CausalModel, *, blocks: int, block_size: int) -> None:
        self.model = model
        self.block_size = block_size
        self._shape = model.shape
        shape = model.shape
        # No windows: a model that attends by itself.
        self._kernels = bool(shape.windows) and kernels_attend(
            shape.layers, shape.dtype, shape.device
        )
        self._stores = allocate(
            self._shape.layers,
            blocks=blocks,
            block_size=block_size,
            dtype=self._shape.cache_dtype,
            device=self._shape.device,
        )
        set_threads(torch.get_num_threads())

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero blocks that change hands; our own kernels read only what was written since."""
        if not blocks or self._kernels:
            return
        index = torch.tensor(blocks, dtype=torch.int64, device=self._shape.device)
        for store in self._stores:
            store.clear(index)

    def run(self, work: Sequence[Work]) -> Tensor:
        """Compute and store; states of each work's scored rows and then of its sampled one.

        The last scored row and the sampled one are never the same: a prompt's last token has no
        successor to score.
        """
        batch = build(
            [item.segment() for item in work],
            block_size=self.block_size,
            windows=self._shape.windows,
            dtype=self._shape.dtype,
            device=self._shape.device,
            kernels=self._kernels,
        )
        return self.model.forward(batch, self._stores)
