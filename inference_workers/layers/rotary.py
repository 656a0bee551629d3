"""Rotary position embedding (arXiv 2104.09864), halves rotated as LLaMA's checkpoints expect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SUPPORTED = frozenset({"default", "linear", "llama3"})
"""Scalings whose frequencies don't depend on the text's length."""


def frequencies(parameters: Mapping[str, Any], size: int) -> Tensor:
    """Radians a position for each of the ``size // 2`` pairs, float32.

    ``parameters`` are a transformers configuration's ``rope_parameters`` (of one layer type).
    ``llama3`` follows Llama 3.1's own code: long wavelengths are divided by ``factor``, short ones
    are kept, those between are blended.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.int64).float() / size
    result = 1.0 / (float(parameters["rope_theta"]) ** exponents)
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        return result
    factor = float(parameters["factor"])
    if kind == "linear":
        return result / factor
    if kind != "llama3":
        raise ValueError(f"rope type {kind!r} is not one of {sorted(SUPPORTED)}")
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    trained = float(parameters["original_max_position_embeddings"])
    turns = trained * result / (2 * math.pi)
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * result / factor + blend * result


class Rotation:
    """Tables of cosines and signed sines ``(positions, size)``, and the positions of a batch."""

    def __init__(self, cosines: Tensor, sines: Tensor, positions: Tensor) -> None:
        self.cosines, self.sines = cosines, sines
        self._positions = positions
        self._rows: tuple[Tensor, Tensor] | None = None

    def rows(self) -> tuple[Tensor, Tensor]:
        """Each position's cosines and sines ``(rows, 1, size)``; gathered once a step."""
        if self._rows is None:
            cosines, sines = self.cosines[self._positions], self.sines[self._positions]
            self._rows = cosines.unsqueeze(1), sines.unsqueeze(1)
        return self._rows


class Rotary:
    """Tables of cosines and sines, grown as positions are met."""

    def __init__(self, frequencies: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        self._frequencies = frequencies.to(device)
        self._dtype = dtype
        self._tables = self._compute(1024)

    def _compute(self, length: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, device=self._frequencies.device).float()
        angles = torch.outer(positions, self._frequencies)
        cos, sin = angles.cos(), angles.sin()
        # The rotation's sign lives in the table, so that applying it needs no negation.
        return (
            torch.cat((cos, cos), -1).to(self._dtype),
            torch.cat((-sin, sin), -1).to(self._dtype),
        )

    def at(self, positions: Tensor, longest: int) -> Rotation:
        """The rotation of rows at ``positions``, of which ``longest`` is the largest."""
        while longest >= self._tables[0].shape[0]:
            self._tables = self._compute(2 * self._tables[0].shape[0])
        return Rotation(*self._tables, positions)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate ``x`` of shape ``(rows, heads, size)`` by its rows' angles."""
    cosines, sines = rotation.rows()
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), -1)
    return torch.addcmul(x * cosines, swapped, sines)
