"""Gated activations (arXiv 2002.05202)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.native import kernels

Gate = Literal["silu", "gelu_tanh"]


def gated(x: Tensor, gate: Gate) -> Tensor:
    """``act(x[:, :half]) * x[:, half:]``; ``(rows, half)``. GELU by its approximation with tanh."""
    half = x.shape[1] // 2
    found = kernels()
    if found is not None and x.device.type == "cpu" and x.dtype == torch.float32 and half % 8 == 0:
        x = x.contiguous()
        out = torch.empty((x.shape[0], half))
        # An exponential costs about eight multiplications.
        call = found.to(8 * out.numel())
        call.lm_gated(x.data_ptr(), x.shape[0], half, gate == "gelu_tanh", out.data_ptr())
        return out
    front, up = x.chunk(2, -1)
    return (F.silu(front) if gate == "silu" else F.gelu(front, approximate="tanh")) * up
