"""GGUF's quantised blocks as packed weights: the same codes, nothing quantised again.

Layouts are those of ggml's ``ggml-common.h``: a block holds the codes of 32 weights with one or two
float16 factors, or (K-quants) of 256 weights with two float16 factors and small integers that scale
them for each 16 or 32 weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from inference_workers.layers.packing import Q4M, Q5, Q8, Q8G16, Q8M, Bytes, Halves, Kind, pack

Blocks = tuple[Bytes, Halves, Halves | None]
"""Codes ``(blocks, weights)``, scales and minimums ``(blocks, groups)``."""


def packed(type_name: str, raw: Bytes) -> Bytes:
    """``raw`` rows ``(rows, bytes)`` of a GGUF tensor, laid out for the kernels."""
    kind, size, read = _READERS[type_name]
    rows = raw.shape[0]
    codes, scales, minimums = read(raw.reshape(-1, size))
    return pack(
        kind,
        codes.reshape(rows, -1),
        scales.reshape(rows, -1),
        None if minimums is None else minimums.reshape(rows, -1),
    )


def packed_kind(type_name: str) -> Kind | None:
    """How tensors of a GGUF type are packed; ``None`` where they have no blocks."""
    found = _READERS.get(type_name)
    return None if found is None else found[0]


def _half(raw: Bytes, at: int) -> Halves:
    return np.ascontiguousarray(raw[:, at : at + 2]).view(np.float16)


def _nibbles(raw: Bytes) -> Bytes:
    """16 bytes as 32 codes: the lower halves, then the upper ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _fifth(raw: Bytes) -> Bytes:
    """Four bytes as 32 bits, each 16 or 0."""
    return (np.unpackbits(raw, axis=-1, bitorder="little") << 4).astype(np.uint8)


def _q4_0(raw: Bytes) -> Blocks:
    scale = _half(raw, 0)
    return _nibbles(raw[:, 2:]), scale, scale * np.float16(-8)


def _q4_1(raw: Bytes) -> Blocks:
    return _nibbles(raw[:, 4:]), _half(raw, 0), _half(raw, 2)


def _q5_0(raw: Bytes) -> Blocks:
    return _nibbles(raw[:, 6:]) | _fifth(raw[:, 2:6]), _half(raw, 0), None


def _q5_1(raw: Bytes) -> Blocks:
    return _nibbles(raw[:, 8:]) | _fifth(raw[:, 4:8]), _half(raw, 0), _half(raw, 2)


def _q8_0(raw: Bytes) -> Blocks:
    return (raw[:, 2:] ^ 128).astype(np.uint8), _half(raw, 0), None


def _product(factor: Halves, integers: npt.NDArray[np.integer]) -> Halves:
    return (factor.astype(np.float32) * integers.astype(np.float32)).astype(np.float16)


def _sixths(raw: Bytes) -> tuple[Bytes, Bytes]:
    """12 bytes as eight scales and eight minimums of six bits each."""
    low, high, mixed = raw[:, :4], raw[:, 4:8], raw[:, 8:]
    scales = np.concatenate([low & 63, mixed & 15 | low >> 6 << 4], axis=1)
    minimums = np.concatenate([high & 63, mixed >> 4 | high >> 6 << 4], axis=1)
    return scales, minimums


def _q4_k(raw: Bytes) -> Blocks:
    scales, minimums = _sixths(raw[:, 4:16])
    codes = _nibbles(raw[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256)
    return codes, _product(_half(raw, 0), scales), -_product(_half(raw, 2), minimums)


def _q5_k(raw: Bytes) -> Blocks:
    scales, minimums = _sixths(raw[:, 4:16])
    codes = _nibbles(raw[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    which = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (raw[:, None, 16:48] >> which & 1) << 4
    codes = (codes | fifth).astype(np.uint8)
    lowest = -_product(_half(raw, 2), minimums)
    return codes.reshape(-1, 256), _product(_half(raw, 0), scales), lowest


def _q6_k(raw: Bytes) -> Blocks:
    low = raw[:, :128].reshape(-1, 2, 2, 32)
    high = raw[:, 128:192].reshape(-1, 2, 1, 32)
    shifts = np.asarray([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    lower = np.concatenate([low & 15, low >> 4], axis=2)
    codes = lower | (high >> shifts & 3) << 4
    scales = np.ascontiguousarray(raw[:, 192:208]).view(np.int8)
    return codes.reshape(-1, 256) + np.uint8(96), _product(_half(raw, 208), scales), None


_READERS: dict[str, tuple[Kind, int, Callable[[Bytes], Blocks]]] = {
    "Q4_0": (Q4M, 18, _q4_0),
    "Q4_1": (Q4M, 20, _q4_1),
    "Q5_0": (Q5, 22, _q5_0),
    "Q5_1": (Q8M, 24, _q5_1),
    "Q8_0": (Q8, 34, _q8_0),
    "Q4_K": (Q4M, 144, _q4_k),
    "Q5_K": (Q8M, 176, _q5_k),
    "Q6_K": (Q8G16, 210, _q6_k),
}
