"""Weights to few bits: 8 with a scale for each 32 of a row, or 4 with a scale and a minimum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from inference_workers.layers.packing import COLUMNS, Q4M, Q8, ROWS, Bytes, Floats, Kind, pack

ROUNDS = 4
"""Least-squares refinements of a 4-bit group; later ones change nothing that can be measured."""


CHUNK = 1 << 21
"""Weights quantised at a time: bounds memory at a large vocabulary."""


def kind_of(bits: int) -> Kind:
    """How weights of 8 or 4 bits are packed."""
    return Q8 if bits == 8 else Q4M


def quantized_rows(
    read: Callable[[int, int], Floats], rows: int, columns: int, bits: int
) -> Iterator[Bytes]:
    """The bytes of ``quantized``, in pieces, of a matrix that ``read(start, stop)`` gives by rows.

    Holds the packed matrix and ``CHUNK`` weights, never the whole matrix in float32.
    """
    kind, second = kind_of(bits), []
    step = max(ROWS, CHUNK // columns // ROWS * ROWS)
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        _, data = quantized(read(start, stop), bits)
        split = -(-(stop - start) // ROWS) * (columns // COLUMNS) * kind.first
        yield data[:split]
        second.append(data[split:])
    yield from second


def quantized(values: Floats, bits: int) -> tuple[Kind, Bytes]:
    """``values`` ``(rows, columns)``, columns a multiple of 32, packed with 8 or 4 bits."""
    return kind_of(bits), _eight(values) if bits == 8 else _four(values)


def _eight(values: Floats) -> Bytes:
    groups = values.reshape(values.shape[0], -1, COLUMNS)
    scales = (np.abs(groups).max(-1) / 127).astype(np.float16)
    # Codes of the scale as it is kept, not of the exact one.
    codes = np.rint(groups / _not_zero(scales)[:, :, None]).clip(-127, 127) + 128
    return pack(Q8, codes.astype(np.uint8).reshape(values.shape), scales)


def _four(values: Floats) -> Bytes:
    """The range cut in 15 steps at first; then, by turns, the best scale and minimum for the codes
    (linear regression) and the best codes for those, as long as the squared error falls."""
    groups = values.reshape(values.shape[0], -1, COLUMNS)
    lowest, highest = groups.min(-1), groups.max(-1)
    scale, minimum = (highest - lowest) / 15, lowest
    best_scale, best_minimum, codes, error = _fitted(groups, scale, minimum)
    for _ in range(ROUNDS):
        scale, minimum = _regressed(groups, codes)
        candidate = _fitted(groups, scale, minimum)
        better = candidate[3] < error
        best_scale = np.where(better, candidate[0], best_scale)
        best_minimum = np.where(better, candidate[1], best_minimum)
        codes = np.where(better[:, :, None], candidate[2], codes)
        error = np.where(better, candidate[3], error)
    packed_codes = codes.astype(np.uint8).reshape(values.shape)
    return pack(Q4M, packed_codes, best_scale.astype(np.float16), best_minimum.astype(np.float16))


def _fitted(
    groups: Floats, scale: Floats, minimum: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Scale and minimum as float16 keeps them, the nearest codes, each group's squared error."""
    scale = scale.astype(np.float16).astype(np.float32)
    minimum = minimum.astype(np.float16).astype(np.float32)
    codes = np.rint((groups - minimum[:, :, None]) / _not_zero(scale)[:, :, None]).clip(0, 15)
    rest = groups - (codes * scale[:, :, None] + minimum[:, :, None])
    return scale, minimum, codes, np.square(rest).sum(-1)


def _regressed(groups: Floats, codes: Floats) -> tuple[Floats, Floats]:
    mean, centre = groups.mean(-1), codes.mean(-1)
    spread = codes - centre[:, :, None]
    scale = (spread * groups).sum(-1) / _not_zero(np.square(spread).sum(-1))
    return scale, mean - scale * centre


def _not_zero(values: Floats) -> Floats:
    return np.where(values == 0, np.float32(1), values.astype(np.float32))
