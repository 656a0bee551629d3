"""The least time that a step can take: bytes over bandwidth, or operations over peak.

What a step must read and multiply is counted from the prepared folder itself: every matrix once, of
the head the upper halves of 8-bit codes (a greedy choice reads the lower ones for few tokens), and
the keys and values of what came before. Norms, activations and scheduling are not counted, so a
share of 100 % is out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_workers.layers.packing import COLUMNS, Q8, ROWS
from inference_workers.models.folder import find_weights, read_config
from inference_workers.models.safetensors_file import TensorHeader


@dataclass(frozen=True, slots=True)
class Roof:
    """``seconds`` at least, because of ``memory`` or ``compute``."""

    seconds: float
    by: str


class Roofline:
    """Of one model, on a machine with ``peaks`` (``peaks.measure``), by an engine that said what
    ``Served.describe`` says."""

    def __init__(self, folder: Path, peaks: Mapping[str, float], engine: Mapping[str, Any]) -> None:
        matrices = [
            (name, header)
            for name, header in find_weights(folder).tensors.items()
            if len(header.shape) == 2 and "position" not in name  # those are looked up
        ]
        vocabulary = max(header.shape[0] for _, header in matrices)
        heads = [header for _, header in matrices if header.shape[0] == vocabulary]
        layers = [header for _, header in matrices if header.shape[0] != vocabulary]
        kernels, self._element = bool(engine["kernels"]), int(engine["dtype_bytes"])
        packed = kernels and any(header.kind for header in layers)
        self._head, self._layers = heads[-1].parameters, sum(h.parameters for h in layers)
        self._bytes = sum(self._size(h, kernels) for h in layers)
        self._bytes += _upper(heads[-1]) if packed else self._size(heads[-1], kernels)
        self._cache = [(values * int(engine["cache_bytes"]), w) for values, w in engine["layers"]]
        wide = max(peaks["float32"], peaks["bfloat16"] if self._element == 2 else 0)
        self._float, self._product = wide, peaks["int8"] if packed else wide
        self._bandwidth = peaks["bandwidth"]
        config = read_config(folder)
        self._query = int(config["num_attention_heads"]) * int(
            config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        )

    def step(self, starts: Sequence[int], count: int = 1) -> Roof:
        """A step that computes ``count`` tokens of each sequence, which has ``starts`` before."""
        rows = len(starts) * count
        read = self._bytes + sum(
            size * min(start + count, window or start + count)
            for start in starts
            for size, window in self._cache
        )
        products = 2 * (self._layers * rows + self._head * len(starts))
        attention = (
            4
            * self._query
            * sum(
                min(start + i + 1, window or start + i + 1)
                for start in starts
                for i in range(count)
                for _, window in self._cache
            )
        )
        memory = read / self._bandwidth
        compute = products / self._product + attention / self._float
        return Roof(memory, "memory") if memory > compute else Roof(compute, "compute")

    def decode(self, batch: int, prompt: int, tokens: int) -> Roof:
        """The mean step of so many tokens after prompts of one length."""
        return self.step([prompt + tokens // 2] * batch)

    def _size(self, header: TensorHeader, kernels: bool) -> int:
        packed = header.kind and kernels
        return header.end - header.begin if packed else header.parameters * self._element


def _upper(header: TensorHeader) -> int:
    """What a greedy choice reads of a head: the first plane of plain 8-bit codes, else all."""
    if header.kind != Q8.name:
        return header.end - header.begin
    rows, columns = header.shape
    return -(-rows // ROWS) * (columns // COLUMNS) * Q8.first
