"""Packed weights: few bits a weight, in the order in which the processor multiplies them.

``native/kernels/matrix.h`` draws the layout. A weight is ``scale * (code - zero) + minimum``. The
layout holds GGUF's blocks as they are: their codes exactly, their scales rounded to float16 where a
block has two factors (K-quants; a relative error of at most 2^-11).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROWS, COLUMNS = 16, 32
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to pack. ``group`` columns share a scale; ``zero`` is the code of weight 0, where no
    minimums say otherwise; ``number`` is the kernels' name for it."""

    name: str
    number: int
    bits: int
    group: int = 32
    minimum: bool = False

    @property
    def zero(self) -> int:
        return 0 if self.minimum else 1 << (self.bits - 1)

    @property
    def halves(self) -> int:
        """float16 numbers at the start of a tile, in rows of 16."""
        return COLUMNS // self.group + self.minimum

    @property
    def first(self) -> int:
        """Bytes of a tile in the first plane."""
        return 2 * ROWS * self.halves + ROWS * COLUMNS // 2

    @property
    def second(self) -> int:
        """Bytes of a tile in the second plane."""
        return ROWS * COLUMNS * (self.bits - 4) // 8

    def bytes(self, rows: int, columns: int) -> int:
        """Size of a packed matrix of ``rows`` by ``columns`` weights."""
        tiles = -(-rows // ROWS) * -(-columns // COLUMNS)
        return tiles * (self.first + self.second)


Q4M = Kind("q4m", 0, 4, minimum=True)
Q5 = Kind("q5", 1, 5)
Q8 = Kind("q8", 2, 8)
Q8G16 = Kind("q8g16", 3, 8, group=16)
Q8M = Kind("q8m", 4, 8, minimum=True)
KINDS = {kind.name: kind for kind in (Q4M, Q5, Q8, Q8G16, Q8M)}


def pack(kind: Kind, codes: Bytes, scales: Halves, minimums: Halves | None = None) -> Bytes:
    """Lay out ``codes`` ``(rows, columns)`` with ``scales`` ``(rows, columns / group)`` and
    ``minimums`` of the same shape; ``(bytes,)``: the first plane and then the second.

    ``columns`` is a multiple of 32. Rows are filled up to a multiple of 16 with weights of 0.
    """
    rows, columns = codes.shape
    fill = -rows % ROWS
    if fill:
        codes = np.pad(codes, ((0, fill), (0, 0)), constant_values=kind.zero)
        scales = np.pad(scales, ((0, fill), (0, 0)))
        minimums = None if minimums is None else np.pad(minimums, ((0, fill), (0, 0)))
    panels, groups = (rows + fill) // ROWS, columns // COLUMNS
    # panel, half of the rows, row, group, step, column of four
    tiled: Bytes = codes.reshape(panels, 2, 8, groups, 8, 4)
    upper = (tiled >> 4 if kind.bits == 8 else tiled & 15).astype(np.uint8)
    numbers = [_numbers(scales, panels, groups)]
    if kind.minimum:
        assert minimums is not None
        numbers.append(_numbers(minimums, panels, groups))
    first = np.concatenate([*numbers, _nibbles(upper)], axis=2)
    planes = [first.reshape(-1)]
    if kind.bits == 8:
        planes.append(_nibbles((tiled & 15).astype(np.uint8)).reshape(-1))
    elif kind.bits == 5:
        bits = np.packbits(tiled >> 4 & 1, axis=4, bitorder="little")[:, :, :, :, 0]
        planes.append(bits.transpose(0, 3, 1, 2, 4).reshape(-1))  # panel, group, half, row, column
    return np.concatenate(planes)


def _numbers(values: Halves, panels: int, groups: int) -> Bytes:
    """``(rows, groups * each)`` as bytes ``(panels, groups, each * 32)``, row by row within."""
    each = values.shape[1] // groups
    ordered = values.astype(np.float16).reshape(panels, ROWS, groups, each).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(ordered).view(np.uint8).reshape(panels, groups, -1)


def _nibbles(values: Bytes) -> Bytes:
    """Four-bit ``(panel, half, row, group, step, column)`` as bytes ``(panels, groups, 256)``."""
    both: Bytes = (values[:, 0] | values[:, 1] << 4).astype(np.uint8)
    return both.transpose(0, 2, 3, 1, 4).reshape(values.shape[0], -1, 256)


def unpack(kind: Kind, data: Bytes, rows: int, columns: int) -> Floats:
    """The weights ``(rows, columns)`` of a packed matrix."""
    panels, groups = -(-rows // ROWS), columns // COLUMNS
    split = panels * groups * kind.first
    first = data[:split].reshape(panels, groups, kind.first)
    numbers = _halves(kind, first)
    codes = _spread(first[:, :, 32 * kind.halves :]).astype(np.int16)
    second = data[split:].reshape(panels, groups, -1)
    if kind.bits == 8:
        codes = codes << 4 | _spread(second)
    elif kind.bits == 5:
        bits = np.unpackbits(second.reshape(panels, groups, 2, 8, 1, 4), axis=4, bitorder="little")
        codes |= bits.transpose(0, 2, 3, 1, 4, 5).astype(np.int16) << 4
    each = COLUMNS // kind.group
    scales = _scales(kind, numbers)
    values = (codes.reshape(panels * ROWS, columns) - kind.zero).astype(np.float32)
    weights = values.reshape(panels * ROWS, -1, kind.group) * scales[:, :, None]
    if kind.minimum:
        weights += numbers[:, :, each].transpose(0, 2, 1).reshape(panels * ROWS, -1)[:, :, None]
    result: Floats = weights.reshape(panels * ROWS, columns)[:rows]
    return result


def unpacked_rows(
    kind: Kind, data: Bytes, rows: int, columns: int, start: int, stop: int
) -> Floats:
    """Rows ``start`` to ``stop`` of ``unpack``, without the others; ``start`` a multiple of 16."""
    groups = columns // COLUMNS
    first, last = start // ROWS, -(-stop // ROWS)
    split = -(-rows // ROWS) * groups * kind.first
    planes = ((0, kind.first), (split, kind.second))
    cut = [data[at + first * groups * size : at + last * groups * size] for at, size in planes]
    return unpack(kind, np.concatenate(cut), stop - start, columns)


def _halves(kind: Kind, first: Bytes) -> Floats:
    """The tiles' float16 numbers as ``(panels, groups, numbers, 16)``."""
    numbers = np.ascontiguousarray(first[:, :, : 32 * kind.halves]).view(np.float16)
    return numbers.reshape(*first.shape[:2], kind.halves, ROWS).astype(np.float32)


def _scales(kind: Kind, numbers: Floats) -> Floats:
    each = COLUMNS // kind.group
    scales: Floats = numbers[:, :, :each].transpose(0, 3, 1, 2)
    return scales.reshape(numbers.shape[0] * ROWS, -1)


def _spread(nibbles: Bytes) -> Bytes:
    """Bytes ``(panels, groups, 256)`` as codes ``(panel, half, row, group, step, column)``."""
    steps = nibbles.reshape(*nibbles.shape[:2], 8, 8, 4)
    both = np.stack([steps & 15, steps >> 4], axis=1)
    return both.transpose(0, 1, 4, 2, 3, 5)
