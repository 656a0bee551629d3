"""One step's work as tensors: what to compute, where its keys and values lie, who attends to what.

Rows of all sequences lie one after another without padding; only attention pads, inside groups of
sequences of similar shape. Everything here is built once a step and used by every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Window = int | None
WASTE_KEYS = 512
"""Padding that a group may hold before a second one pays: a further group costs about 40 us a layer
on a CPU, a padded key of one row about 0.1 us."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Some consecutive tokens of one sequence, to be computed in this step.

    ``start`` is the position of ``tokens[0]``; ``blocks`` is the sequence's block table; ``wanted``
    are the offsets in ``tokens`` whose states the caller needs.
    """

    tokens: Sequence[int]
    start: int
    blocks: Sequence[int]
    wanted: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(slots=True)
class View:
    """The keys that a group sees: ``blocks`` is ``(sequences * blocks each,)``; ``mask`` is added
    to the scores, ``(sequences, 1, queries or 1, keys)``. ``queries`` and ``keys`` are positions,
    ``(sequences, queries)`` and ``(sequences, keys)``."""

    blocks: Tensor
    mask: Tensor
    queries: NDArray[np.int64]
    keys: NDArray[np.int64]
    repeats: dict[int, Tensor] = field(default_factory=dict)
    biases: Tensor | None = None

    def repeated(self, each: int) -> Tensor:
        """The mask for ``each`` query heads a key head, query by query; made once a step."""
        known = self.repeats.get(each)
        if known is None:
            known = self.repeats[each] = self.mask.repeat_interleave(each, 2)
        return known

    def biased(self, slopes: Tensor) -> Tensor:
        """The mask with every head's penalty for distance (ALiBi, arXiv 2108.12409) added,
        ``(sequences, heads, queries, keys)``; made once a step for the model's ``(heads,)`` slopes.
        """
        if self.biases is None:
            distance = torch.from_numpy(self.keys[:, None, :] - self.queries[:, :, None])
            # Distances are small where they matter: positions would be rounded away in bfloat16.
            bias = slopes[:, None, None] * distance[:, None].to(slopes.device)
            self.biases = bias.add_(self.mask).to(self.mask.dtype)
        return self.biases


@dataclass(slots=True)
class Group:
    """Sequences whose rows attend together. ``gather`` pads their rows to ``(sequences * queries)``
    and ``scatter`` picks the real ones; both are ``None`` when nothing is padded."""

    members: list[Segment]
    rows: slice
    queries: int
    gather: Tensor | None = None
    scatter: Tensor | None = None
    views: dict[Window, View] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sequences:
    """A batch as the kernels read it: ``fields`` is ``(sequences, 4)`` of the first row, the number
    of rows, the first position and where in ``table`` the sequence's blocks begin."""

    fields: Tensor
    table: Tensor


@dataclass(slots=True)
class Batch:
    """``tokens``, ``positions`` and ``slots`` (block * block size + offset) are ``(rows,)``;
    ``wanted`` are the rows to return, in the order of ``segments`` as given. Either ``sequences``
    or ``groups`` say who attends to what."""

    segments: Sequence[Segment]
    tokens: Tensor
    positions: Tensor
    slots: Tensor
    wanted: Tensor
    groups: list[Group]
    longest: int
    block_size: int
    sequences: Sequences | None = None


def build(
    segments: Sequence[Segment],
    *,
    block_size: int,
    windows: Sequence[Window],
    dtype: torch.dtype,
    device: torch.device,
    kernels: bool = False,
) -> Batch:
    """Lay out one step. ``windows`` are the model's distinct attention windows (``None``: all);
    ``kernels`` whether our own attend."""
    order: Sequence[int] = range(len(segments))
    if not kernels:
        order = sorted(
            order, key=lambda i: (len(segments[i].tokens), segments[i].end), reverse=True
        )
    starts = np.zeros(len(segments), np.int64)
    row = 0
    for i in order:
        starts[i] = row
        row += len(segments[i].tokens)
    laid = [segments[i] for i in order]
    groups = [] if kernels else _groups(laid)
    for group in groups:
        _pad(group, device)
        for window in windows:
            _see(group, window, block_size, dtype, device)
    positions = np.concatenate([np.arange(s.start, s.end) for s in laid])
    wanted = [starts[i] + offset for i, s in enumerate(segments) for offset in s.wanted]
    return Batch(
        segments=segments,
        tokens=_tensor(np.concatenate([np.asarray(s.tokens, np.int64) for s in laid]), device),
        positions=_tensor(positions, device),
        slots=_tensor(np.concatenate([_slots(s, block_size) for s in laid]), device),
        wanted=_tensor(np.asarray(wanted, np.int64), device),
        groups=groups,
        longest=int(positions.max()),
        block_size=block_size,
        sequences=_sequences(segments, starts) if kernels else None,
    )


def _sequences(segments: Sequence[Segment], starts: NDArray[np.int64]) -> Sequences:
    lengths = np.asarray([len(s.blocks) for s in segments], np.int64)
    fields = np.empty((len(segments), 4), np.int64)
    fields[:, 0] = starts
    fields[:, 1] = [len(s.tokens) for s in segments]
    fields[:, 2] = [s.start for s in segments]
    fields[:, 3] = np.cumsum(lengths) - lengths
    table = np.concatenate([np.asarray(s.blocks, np.int64) for s in segments])
    return Sequences(torch.from_numpy(fields), torch.from_numpy(table))


def _groups(laid: Sequence[Segment]) -> list[Group]:
    """Cut the sorted segments where padding to the largest shape would cost more than a group."""
    groups: list[Group] = []
    row = waste = work = longest = 0
    for segment in laid:
        count = len(segment.tokens)
        fits = False
        if groups:
            waste += groups[-1].queries * max(longest, segment.end) - count * segment.end
            work += count * segment.end
            fits = segment.end <= longest and waste <= max(WASTE_KEYS, work // 4)
        if fits:
            groups[-1].members.append(segment)
            groups[-1].rows = slice(groups[-1].rows.start, row + count)
        else:
            groups.append(Group([segment], slice(row, row + count), count))
            waste, work, longest = 0, count * segment.end, segment.end
        row += count
    return groups


def _pad(group: Group, device: torch.device) -> None:
    counts = np.asarray([len(s.tokens) for s in group.members])
    if (counts == group.queries).all():
        return
    first = np.cumsum(counts) - counts
    columns = np.arange(group.queries)
    # A padding row repeats its sequence's last one: harmless, and never a row of NaN.
    gather = first[:, None] + np.minimum(columns[None, :], counts[:, None] - 1)
    group.gather = _tensor(gather.reshape(-1), device)
    real = columns[None, :] < counts[:, None]
    group.scatter = _tensor(np.flatnonzero(real.reshape(-1)), device)


def _see(
    group: Group, window: Window, block_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    ends = np.asarray([s.end for s in group.members])
    begins = np.asarray([s.start for s in group.members])
    if window is not None and int(ends.max()) <= window and None in group.views:
        group.views[window] = group.views[None]
        return
    first = np.zeros_like(begins) if window is None else np.maximum(begins - window + 1, 0)
    first //= block_size
    last = -(-ends // block_size)
    width = int((last - first).max())
    table = np.zeros((len(group.members), width), np.int64)
    for row, (segment, low, high) in enumerate(zip(group.members, first, last, strict=True)):
        table[row, : high - low] = segment.blocks[low:high]
    keys = first[:, None] * block_size + np.arange(width * block_size)[None, :]
    queries = np.minimum(begins[:, None] + np.arange(group.queries)[None, :], ends[:, None] - 1)
    allowed = keys[:, None, :] <= queries[:, :, None]
    if window is not None:
        allowed &= keys[:, None, :] > queries[:, :, None] - window
    mask = torch.zeros(allowed.shape, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(~allowed), float("-inf"))
    blocks = _tensor(table.reshape(-1), device)
    group.views[window] = View(blocks, mask[:, None].to(device), queries, keys)


def _slots(segment: Segment, block_size: int) -> NDArray[np.int64]:
    low = segment.start // block_size
    blocks = np.asarray(segment.blocks[low : -(-segment.end // block_size)], np.int64)
    positions = np.arange(segment.start, segment.end)
    slots: NDArray[np.int64] = blocks[positions // block_size - low] * block_size
    return slots + positions % block_size


def _tensor(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)
