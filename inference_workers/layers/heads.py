"""From one product of queries, keys and values to rotated queries, and keys and values kept."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_workers.layers.attention import KeyValues
from inference_workers.layers.batch import Batch
from inference_workers.layers.norm import HeadsNorm
from inference_workers.layers.rotary import Rotation, rotate
from inference_workers.native import kernels


class Heads:
    """``query heads + 2 * key heads`` of ``size`` lie side by side in each row of a product.

    Queries and keys are normalised where there are ``norms`` (Gemma 3, Qwen 3), then rotated.
    """

    def __init__(
        self, query_heads: int, key_heads: int, size: int, norms: HeadsNorm | None = None
    ) -> None:
        self.size = size
        self._queries, self._keys = query_heads, key_heads
        self._norms = norms

    def place(self, rows: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        """Keep keys and values at the batch's slots; rotated queries ``(rows, heads, size)``."""
        if batch.sequences is not None:
            return self._placed(rows, rotation, batch, store)
        heads = rows.view(rows.shape[0], -1, self.size)
        rotated = self._queries + self._keys
        qk = heads[:, :rotated]
        if self._norms is not None:
            qk = self._norms.forward(qk)
        qk = rotate(qk, rotation)
        store.write(batch.slots, qk[:, self._queries :], heads[:, rotated:])
        return qk[:, : self._queries]

    def _placed(self, rows: Tensor, rotation: Rotation, batch: Batch, store: KeyValues) -> Tensor:
        found = kernels()
        assert found is not None
        assert store.native is not None
        queries = torch.empty((rows.shape[0], self._queries, self.size))
        norms = self._norms
        found.to(8 * rows.numel()).lm_place_heads(
            rows.data_ptr(),
            rows.shape[0],
            self._queries,
            None if norms is None else norms.query.data_ptr(),
            None if norms is None else norms.key.data_ptr(),
            0.0 if norms is None else norms.eps,
            rotation.cosines.data_ptr(),
            rotation.sines.data_ptr(),
            batch.positions.data_ptr(),
            batch.slots.data_ptr(),
            store.native,
            queries.data_ptr(),
        )
        return queries
