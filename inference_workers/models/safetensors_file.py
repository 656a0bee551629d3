"""Safetensors files: check one against its own header, write one without holding it in memory.

The format: 8 bytes of header length, a JSON header (name → dtype, shape, data_offsets), the data.
See the ``safetensors`` package's documentation. Reading values is that package's work; here are the
checks it leaves out, and a writer that streams.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_workers.errors import ModelError
from inference_workers.layers.packing import COLUMNS, KINDS

MAX_HEADER = 100_000_000
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
PACKED = "packed"
"""The metadata's key: packed matrices as ``{name: [kind, rows, columns]}``, in JSON."""
LAYOUT_KEY, LAYOUT = "packed_layout", "2"
"""Which order of codes ``layers/packing.py`` and the kernels know: to be raised when it changes."""
FORMATS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor: ``dtype`` in safetensors' names, ``begin`` and ``end`` within the data.

    Of a packed matrix, ``kind`` is its packing's name and ``shape`` that of the weights.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    kind: str = ""

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to be written: its pieces' bytes, joined, are its data. ``shape`` and ``kind`` are
    those of a ``TensorHeader``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Iterable[npt.NDArray[Any]]
    kind: str = ""

    @property
    def nbytes(self) -> int:
        if self.kind:
            return KINDS[self.kind].bytes(*self.shape)
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Every tensor's entry, checked: known dtypes, sizes that fit, no gap, no overlap, whole file.

    Raises:
        ModelError: the file is cut off, padded, or contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _truncated(path, size)
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER:
            raise _corrupt(path, "its header is absurdly long")
        if 8 + length > size:
            raise _truncated(path, size)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = header.get("__metadata__", {})
        packed = json.loads(metadata.get(PACKED, "{}"))
        layout = metadata.get(LAYOUT_KEY)
        entries = {
            str(name): _entry(path, str(name), value, packed.get(name))
            for name, value in header.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _corrupt(path, "its header is not what the format asks for") from error
    if packed and layout != LAYOUT:
        raise ModelError(
            f"{path.name} was packed by another version of this program, in another order. Prepare "
            "the model again.",
            code="old_layout",
        )
    _check_layout(path, entries, size - 8 - length)
    return entries


def _entry(path: Path, name: str, value: Mapping[str, Any], packed: Any) -> TensorHeader:
    begin, end = (int(offset) for offset in value["data_offsets"])
    entry = TensorHeader(str(value["dtype"]), tuple(int(n) for n in value["shape"]), begin, end)
    if entry.dtype not in DTYPE_BYTES:
        raise _corrupt(path, f"tensor {name!r} has the unknown type {entry.dtype!r}")
    if any(n < 0 for n in entry.shape):
        raise _corrupt(path, f"tensor {name!r} has a negative dimension")
    if packed is not None:
        kind, rows, columns = KINDS[packed[0]], int(packed[1]), int(packed[2])
        if min(rows, columns) < 1 or columns % COLUMNS or end - begin != kind.bytes(rows, columns):
            raise _corrupt(path, f"packed matrix {name!r} has a size that is not its shape's")
        return TensorHeader(entry.dtype, (rows, columns), begin, end, kind.name)
    if end - begin != entry.parameters * DTYPE_BYTES[entry.dtype]:
        raise _corrupt(path, f"tensor {name!r} has a size that is not its shape's")
    return entry


def _check_layout(path: Path, entries: Mapping[str, TensorHeader], data_bytes: int) -> None:
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise _corrupt(path, "its tensors overlap or leave a gap")
        position = entry.end
    if position > data_bytes:
        raise ModelError(
            f"{path.name} is cut off: its header announces {position:,} bytes of weights, and "
            f"{data_bytes:,} are there. Prepare the model again.",
            code="truncated",
        )
    if position < data_bytes:
        raise _corrupt(path, f"{data_bytes - position:,} bytes follow its last tensor")


def storage_format(entries: Iterable[TensorHeader]) -> str:
    """``bf16``, ``fp16`` or ``fp32``: the type that most of the parameters are stored in; ``int8``
    or ``int4`` where that is packed, by the number of bits that most take, fives among the fours.
    """
    totals: dict[str, int] = {}
    for entry in entries:
        if entry.kind:
            bits = "int8" if KINDS[entry.kind].bits == 8 else "int4"
            totals[bits] = totals.get(bits, 0) + entry.parameters
        elif entry.dtype in FORMATS:
            totals[entry.dtype] = totals.get(entry.dtype, 0) + entry.parameters
    if not totals:
        raise ModelError(
            "The weights are stored in a type that isn't supported. Use a checkpoint in bf16, "
            "fp16 or fp32.",
            code="unsupported_format",
        )
    most = max(totals, key=lambda dtype: totals[dtype])
    return FORMATS.get(most, most)


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Float32 to bfloat16's bits, rounded to nearest, ties to even. NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    rounded >>= 16
    result = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        result[nan] = 0x7FC0
    return result


def write_tensors(path: Path, tensors: Iterable[Output]) -> int:
    """Write named tensors, a piece at a time, and flush them; the number of parameters."""
    listed = list(tensors)
    packed = {t.name: [t.kind, *t.shape] for t in listed if t.kind}
    metadata = {"format": "pt"} | (
        {PACKED: json.dumps(packed), LAYOUT_KEY: LAYOUT} if packed else {}
    )
    header: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for tensor in listed:
        end = position + tensor.nbytes
        shape = [tensor.nbytes] if tensor.kind else list(tensor.shape)
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": shape,
            "data_offsets": [position, end],
        }
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in listed:
            written = sum(file.write(np.ascontiguousarray(p).data) for p in tensor.pieces)
            if written != tensor.nbytes:
                raise _corrupt(path, f"tensor {tensor.name!r} came out with {written:,} bytes")
        file.flush()
        os.fsync(file.fileno())
    return sum(math.prod(tensor.shape) for tensor in listed)


def _truncated(path: Path, size: int) -> ModelError:
    return ModelError(
        f"{path.name} is cut off: it has {size:,} bytes, less than its own header needs. "
        "Prepare the model again.",
        code="truncated",
    )


def _corrupt(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path.name} is damaged: {why}. Prepare the model again, from a good copy.",
        code="corrupt",
    )
