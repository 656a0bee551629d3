"""Keys and values in blocks, and attention over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.layers.batch import Batch, Group, Sequences, Window
from inference_workers.native import LARGEST_HEAD, Store, kernels


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps for each token, and how far back it looks (``None``: everything)."""

    heads: int
    key_size: int
    value_size: int
    window: Window = None

    def values(self) -> int:
        return self.heads * (self.key_size + self.value_size)


@dataclass(frozen=True, slots=True)
class KeyValues:
    """One layer's store: ``(blocks, block size, heads, size)`` each. Block 0 is only padding."""

    keys: Tensor
    values: Tensor
    native: Store | None = None

    def write(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Keep ``(rows, heads, size)`` at ``slots`` (block * block size + offset)."""
        self.keys.flatten(0, 1).index_copy_(0, slots, keys.to(self.keys.dtype))
        self.values.flatten(0, 1).index_copy_(0, slots, values.to(self.values.dtype))

    def clear(self, blocks: Tensor) -> None:
        """Zero blocks before their next owner: NaN of the last one would pass through a mask."""
        self.keys.index_fill_(0, blocks, 0)
        self.values.index_fill_(0, blocks, 0)


def windows(shapes: Iterable[LayerShape]) -> tuple[Window, ...]:
    """The distinct windows, everything first."""
    return tuple(sorted({s.window for s in shapes}, key=lambda w: (w is not None, w or 0)))


def allocate(
    shapes: Sequence[LayerShape],
    *,
    blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> list[KeyValues]:
    """Stores for ``blocks`` usable blocks and the padding block."""

    def zeros(heads: int, size: int) -> Tensor:
        shape = (blocks + 1, block_size, heads, size)
        if device.type != "cpu":
            return torch.zeros(shape, dtype=dtype, device=device)
        # From the system as it comes: a page is memory only once somebody writes to it.
        data = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
        return torch.from_numpy(data).view(dtype).view(shape)

    return [_kept(zeros(s.heads, s.key_size), zeros(s.heads, s.value_size)) for s in shapes]


def _kept(keys: Tensor, values: Tensor) -> KeyValues:
    if keys.device.type != "cpu" or keys.dtype not in (torch.float32, torch.float16):
        return KeyValues(keys, values)
    _, block, heads, size = keys.shape
    half = keys.dtype == torch.float16
    at = (keys.data_ptr(), values.data_ptr())
    return KeyValues(keys, values, Store(*at, half, block, heads, size, values.shape[3]))


def kernels_attend(shapes: Iterable[LayerShape], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether our own kernels attend for a model that computes in ``dtype``."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and kernels() is not None
        and all(
            size % 16 == 0 and size <= LARGEST_HEAD
            for shape in shapes
            for size in (shape.key_size, shape.value_size)
        )
    )


def alibi_slopes(heads: int) -> Tensor:
    """What each head subtracts for each token of distance (ALiBi, arXiv 2108.12409), float32.

    A geometric series for a power of two; other counts take the next power's odd terms as well.
    """
    power = 2 ** math.floor(math.log2(heads))
    terms = [
        *(8 * i / power for i in range(1, power + 1)),
        *(4 * i / power for i in range(1, 2 * power, 2)),
    ]
    return 2.0 ** -torch.tensor(terms[:heads])


def attend(
    queries: Tensor,
    store: KeyValues,
    batch: Batch,
    *,
    window: Window,
    scale: float,
    slopes: Tensor | None = None,
) -> Tensor:
    """Attention of ``(rows, query heads, size)`` over everything stored; ``(rows, features)``.

    Grouped heads (arXiv 2305.13245): query head ``h`` reads key head ``h // (heads / key heads)``.
    ``slopes`` (see ``alibi_slopes``) need as many key heads as query heads.
    """
    if batch.sequences is not None:
        return _by_kernel(queries.contiguous(), store, batch.sequences, window, scale, slopes)
    parts = [
        _attend(queries[group.rows], store, group, window, scale, slopes) for group in batch.groups
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_kernel(
    queries: Tensor,
    store: KeyValues,
    sequences: Sequences,
    window: Window,
    scale: float,
    slopes: Tensor | None,
) -> Tensor:
    found = kernels()
    assert found is not None
    assert store.native is not None
    rows, heads, _ = queries.shape
    out = torch.empty((rows, heads * store.values.shape[3]))
    failed = found.long.lm_attend(
        queries.data_ptr(), heads, store.native, sequences.fields.data_ptr(),
        sequences.fields.shape[0], sequences.table.data_ptr(), window or 0,
        None if slopes is None else slopes.data_ptr(), scale, out.data_ptr(),
    )  # fmt: skip
    if failed:
        raise MemoryError
    return out


def _attend(
    queries: Tensor,
    store: KeyValues,
    group: Group,
    window: Window,
    scale: float,
    slopes: Tensor | None,
) -> Tensor:
    view = group.views[window]
    count, length = len(group.members), group.queries
    heads = store.keys.shape[2]
    each = queries.shape[1] // heads
    if group.gather is not None:
        queries = queries.index_select(0, group.gather)
    # The heads of a group become further rows of their key head: nothing is repeated.
    grouped = queries.view(count, length, heads, each, -1).permute(0, 2, 1, 3, 4)
    grouped = grouped.reshape(count, heads, length * each, -1)
    keys = store.keys.index_select(0, view.blocks).view(count, -1, heads, store.keys.shape[3])
    values = store.values.index_select(0, view.blocks).view(count, -1, heads, store.values.shape[3])
    mask = view.mask
    if slopes is not None:
        mask = view.biased(slopes)
    elif length > 1 and each > 1:
        mask = view.repeated(each)
    out = F.scaled_dot_product_attention(
        grouped, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask, scale=scale
    )
    out = out.view(count, heads, length, each, -1).permute(0, 2, 1, 3, 4)
    out = out.reshape(count * length, -1)
    return out if group.scatter is None else out.index_select(0, group.scatter)
