"""Reading a GGUF file: metadata and where each tensor lies. Nothing is trusted, nothing is copied.

The format is described in ggml's ``docs/gguf.md``. The ``gguf`` package's own reader makes a NumPy
array of every string and needs ten seconds for a vocabulary of 262,144 tokens; this one needs less
than one, and checks every length against the file's size before it reads.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from inference_workers.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 20
MAX_DIMENSIONS = 4

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_CHUNK_VALUES = 4 << 20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. ``shape`` is rows first, as in NumPy; ``offset`` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    nbytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def type_name(self) -> str:
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType(self.type_id).name


class GgufFile:
    """An open, memory-mapped GGUF file. Use it as a context manager.

    Raises:
        ModelError: the file is not GGUF, is cut off, or says something impossible about itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        try:
            if path.stat().st_size < 24:
                raise self._broken("it is too short to be one")
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise
        try:
            self._parse()
        except (struct.error, UnicodeDecodeError, OverflowError, ValueError) as error:
            self.close()
            raise self._broken("it is cut off or damaged") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._map.close()
        self._file.close()

    def rows(self, tensor: TensorInfo) -> Iterator[npt.NDArray[np.float32]]:
        """The tensor's values, dequantised, some rows at a time (about 16 MB of float32 each).

        Rows are the first dimension; a one-dimensional tensor comes as one array.

        Raises:
            ModelError: the ``gguf`` package can't dequantise this type.
        """
        from gguf import GGMLQuantizationType, dequantize

        kind = GGMLQuantizationType(tensor.type_id)
        count = tensor.shape[0] if len(tensor.shape) > 1 else 1
        row_bytes = tensor.nbytes // count
        step = max(1, _CHUNK_VALUES // max(1, tensor.parameters // count))
        for start in range(0, count, step):
            taken = min(step, count - start)
            begin = tensor.offset + start * row_bytes
            # A copy, so that no view keeps the map open.
            raw = np.frombuffer(self._map[begin : begin + taken * row_bytes], dtype=np.uint8)
            try:
                values = dequantize(raw.reshape(taken, row_bytes), kind)
            except NotImplementedError:
                raise ModelError(
                    f"{self.path.name} stores the tensor {tensor.name!r} as {kind.name}, which "
                    "can't be read. Use a file of the same model in Q4_K_M, Q8_0 or F16.",
                    code="unsupported_tensor",
                ) from None
            shape = (taken, *tensor.shape[1:]) if len(tensor.shape) > 1 else tensor.shape
            yield np.ascontiguousarray(values, dtype=np.float32).reshape(shape)

    def raw(self, tensor: TensorInfo) -> npt.NDArray[np.uint8]:
        """A matrix's bytes as they are stored, ``(rows, bytes of a row)``."""
        # A copy, so that no view keeps the map open.
        data = self._map[tensor.offset : tensor.offset + tensor.nbytes]
        return np.frombuffer(data, dtype=np.uint8).reshape(tensor.shape[0], -1)

    def require(self, key: str) -> Any:
        """The metadata value ``key``; a file without it can't be used."""
        if key not in self.metadata:
            raise self._broken(f"it lacks the entry {key!r}")
        return self.metadata[key]

    def _parse(self) -> None:
        magic, version, tensors, entries = struct.unpack_from("<4sIQQ", self._map, 0)
        if magic != MAGIC:
            raise self._broken("its first bytes are not GGUF's")
        if version not in VERSIONS:
            raise self._broken(f"it has version {version}; versions 2 and 3 are read")
        if tensors > MAX_ENTRIES or entries > MAX_ENTRIES:
            raise self._broken("it announces an absurd number of entries")
        self._at = 24
        self.metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("I"))
        found = [self._tensor_info() for _ in range(tensors)]
        alignment = int(self.metadata.get("general.alignment", 32))
        if not 1 <= alignment <= 1 << 16:
            raise self._broken(f"its alignment is {alignment}")
        start = -(-self._at // alignment) * alignment
        self.tensors = {info.name: self._placed(info, start) for info in found}
        if len(self.tensors) != len(found):
            raise self._broken("two of its tensors have the same name")

    def _placed(self, info: TensorInfo, start: int) -> TensorInfo:
        offset = start + info.offset
        if offset + info.nbytes > len(self._map):
            raise ModelError(
                f"{self.path.name} is cut off: tensor {info.name!r} ends beyond the file's "
                f"{len(self._map):,} bytes. Fetch the file again.",
                code="truncated",
            )
        return TensorInfo(info.name, info.shape, info.type_id, offset, info.nbytes)

    def _tensor_info(self) -> TensorInfo:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._string()
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._broken(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        type_id, offset = self._scalar("I"), self._scalar("Q")
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(type_id)]
        except (ValueError, KeyError):
            raise self._broken(f"tensor {name!r} has the unknown type {type_id}") from None
        if 0 in shape or shape[-1] % block:
            raise self._broken(f"tensor {name!r} has the impossible shape {shape}")
        return TensorInfo(name, shape, type_id, offset, math.prod(shape) // block * block_bytes)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(self._scalar("I"), self._scalar("Q"))
        if kind not in _SCALARS:
            raise self._broken(f"a metadata entry has the unknown type {kind}")
        return self._scalar(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind == _STRING:
            if count > (len(self._map) - self._at) // 8:
                raise self._broken("a list in it is longer than the file")
            return [self._string() for _ in range(count)]
        if kind not in _SCALARS:
            raise self._broken(f"a metadata list has the unsupported type {kind}")
        layout = f"<{count}{_SCALARS[kind]}"
        size = struct.calcsize(f"<{_SCALARS[kind]}") * count
        if size > len(self._map) - self._at:
            raise self._broken("a list in it is longer than the file")
        values = struct.unpack_from(layout, self._map, self._at)
        self._at += size
        return list(values)

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._map, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        (length,) = struct.unpack_from("<Q", self._map, self._at)
        begin, end = self._at + 8, self._at + 8 + length
        if end > len(self._map):
            raise self._broken("a text in it is longer than the file")
        self._at = end
        return self._map[begin:end].decode("utf-8")

    def _broken(self, why: str) -> ModelError:
        return ModelError(
            f"{self.path.name} can't be read as a GGUF file: {why}. Fetch it again, or use another "
            "file of the same model.",
            code="corrupt",
        )
