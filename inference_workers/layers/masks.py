"""Which tokens a row may have: bit ``t % 32`` of word ``t // 32`` for token ``t``, as llguidance
says it. A mask has no tokens beyond its words."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.int32]
Masks = Sequence[Mask | None]
"""One a row; ``None`` allows everything. All have one length."""


def forbid(logits: Tensor, masks: Masks, start: int = 0) -> None:
    """Make what ``masks`` lack impossible, in place. ``logits`` are ``(rows, tokens)``, from token
    ``start`` on, a multiple of 32.

    Each byte of a mask looks up what to add to its eight tokens: 30 times faster than filling by
    a boolean mask.
    """
    rows = [(row, mask) for row, mask in enumerate(masks) if mask is not None]
    if not rows:
        return
    cut = np.stack([mask[start // 32 :] for _, mask in rows])
    size = min(logits.shape[1], cut.shape[1] * 32)
    keys = torch.from_numpy(cut.view(np.uint8)[:, : -(-size // 8)]).to(logits.device, torch.int32)
    shifts = torch.nn.functional.embedding(keys, _shifts(logits.device)).flatten(1)
    for (row, _), shift in zip(rows, shifts, strict=True):
        logits[row, :size] += shift[:size]
        logits[row, size:] = -math.inf


@functools.cache
def _shifts(device: torch.device) -> Tensor:
    """For each byte of a mask, 0 for the tokens that its bits allow and -inf for the others."""
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
    return torch.where(bits.bool(), 0.0, -math.inf).to(device)
