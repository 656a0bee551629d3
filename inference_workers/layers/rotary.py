"""Rotary position embedding (arXiv 2104.09864), halves rotated as LLaMA's checkpoints expect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SUPPORTED = frozenset({"default", "linear", "dynamic", "llama3", "yarn"})
"""Scalings whose frequencies don't depend on the text's length, up to a model's context length."""


def frequencies(parameters: Mapping[str, Any], size: int) -> Tensor:
    """Radians a position for each of the ``size // 2`` pairs, float32.

    ``parameters`` are a transformers configuration's ``rope_parameters`` (of one layer type).
    ``llama3`` follows Llama 3.1's own code: long wavelengths are divided by ``factor``, short ones
    are kept, those between are blended; ``yarn`` (arXiv 2309.00071) does so with other bounds.
    ``dynamic`` only changes what lies beyond the context length, where nothing is served.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.int64).float() / size
    result = 1.0 / (float(parameters["rope_theta"]) ** exponents)
    kind = parameters.get("rope_type", "default")
    if kind in ("default", "dynamic"):
        return result
    factor = float(parameters["factor"])
    if kind == "linear":
        return result / factor
    if kind == "yarn":
        kept = _yarn_kept(parameters, size)
        return (1 - kept) * result / factor + kept * result
    if kind != "llama3":
        raise ValueError(f"rope type {kind!r} is not one of {sorted(SUPPORTED)}")
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    trained = float(parameters["original_max_position_embeddings"])
    turns = trained * result / (2 * math.pi)
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * result / factor + blend * result


class Rotation:
    """Tables of cosines and sines ``(positions, size / 2)``, and the positions of a batch."""

    def __init__(self, cosines: Tensor, sines: Tensor, positions: Tensor) -> None:
        self.cosines, self.sines = cosines, sines
        self._positions = positions
        self._rows: tuple[Tensor, Tensor] | None = None

    def rows(self) -> tuple[Tensor, Tensor]:
        """Each position's cosines and sines ``(rows, 1, size)``; gathered once a step. The sines
        bear the rotation's sign, so that applying it needs no negation."""
        if self._rows is None:
            cos, sin = self.cosines[self._positions], self.sines[self._positions]
            self._rows = (
                torch.cat((cos, cos), -1).unsqueeze(1),
                torch.cat((-sin, sin), -1).unsqueeze(1),
            )
        return self._rows


def _yarn_kept(parameters: Mapping[str, Any], size: int) -> Tensor:
    """How much of each pair's own frequency YaRN keeps, 0 to 1: a ramp over the pairs between those
    that turn ``beta_fast`` and ``beta_slow`` times within the context trained on."""
    base, trained = (
        float(parameters[name]) for name in ("rope_theta", "original_max_position_embeddings")
    )

    def pair(turns: float) -> float:
        return size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(parameters.get("beta_fast") or 32), pair(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    width = (last - first) or 0.001
    return 1 - ((torch.arange(size // 2).float() - first) / width).clamp(0, 1)


def attention_factor(parameters: Mapping[str, Any]) -> float:
    """What cosines and sines are multiplied by: more than 1 only where YaRN stretches the context
    (its section 3.4, with the two ``mscale`` weights of later models)."""
    if parameters.get("rope_type", "default") != "yarn":
        return 1.0
    given = parameters.get("attention_factor")
    if given is not None:
        return float(given)

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(max(float(parameters["factor"]), 1.0)) + 1.0

    over, under = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return scale(over) / scale(under) if over and under else scale(1.0)


class Rotary:
    """Tables of cosines and sines, grown as positions are met.

    Both are multiplied by ``factor`` (see ``attention_factor``).
    """

    def __init__(
        self,
        frequencies: Tensor,
        dtype: torch.dtype,
        device: torch.device,
        *,
        factor: float = 1.0,
    ) -> None:
        self._frequencies = frequencies.to(device)
        self._factor = factor
        self._dtype = dtype
        self._tables = self._compute(1024)

    def _compute(self, length: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, device=self._frequencies.device).float()
        angles = torch.outer(positions, self._frequencies)
        cos, sin = angles.cos() * self._factor, angles.sin() * self._factor
        return cos.to(self._dtype), sin.to(self._dtype)

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
