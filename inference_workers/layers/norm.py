"""Root mean square (arXiv 1910.07467) and layer (1607.06450) norms, over the last dimension."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from inference_workers.native import kernels

# A float32 scale on bfloat16 input is meant (see below); torch says once that it is not fused.
warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")

MANY_ROWS = 32
"""From here on working in one float32 buffer is faster on a CPU than torch's own composite, which
allocates six (160 against 1,850 us for 512 rows of 640); below, fewer calls win."""


class RMSNorm:
    """``x / rms(x) * scale``, computed in float32, returned in the input's dtype.

    ``offset`` is added to the scale in float32: Gemma stores its scales around 0, and ``1 + scale``
    rounded to bfloat16 would lose most of what was learnt.
    """

    def __init__(self, scale: Tensor, eps: float, *, offset: float = 0.0) -> None:
        self._scale = scale.float() + offset if offset else scale.contiguous()
        self._shape = (scale.shape[-1],)
        self._eps = eps
        self.bytes = self._scale.nbytes
        self._native = (
            kernels() is not None
            and self._scale.device.type == "cpu"
            and self._scale.dtype == torch.float32
            and self._shape[0] % 8 == 0
        )

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The normalised rows, added to ``onto`` where that is given."""
        if self._native and x.dtype == torch.float32:
            return self._by_kernel(x.contiguous(), onto)
        if x.shape[0] >= MANY_ROWS and x.device.type == "cpu":
            result = _normalised(x, self._eps).mul_(self._scale).to(x.dtype)
        else:
            result = F.rms_norm(x, self._shape, self._scale, self._eps)
        return result if onto is None else onto + result

    def _by_kernel(self, x: Tensor, onto: Tensor | None) -> Tensor:
        found = kernels()
        assert found is not None
        out = torch.empty_like(x)
        found.to(x.numel()).lm_rms_norm(
            x.data_ptr(), x.numel() // self._shape[0], self._shape[0], self._scale.data_ptr(),
            self._eps, None if onto is None else onto.data_ptr(), out.data_ptr(),
        )  # fmt: skip
        return out


class LayerNorm:
    """``(x - mean) / deviation * scale + shift``; what is ``None`` was not learnt."""

    def __init__(self, size: int, scale: Tensor | None, shift: Tensor | None, eps: float) -> None:
        self._shape = (size,)
        self._scale, self._shift, self._eps = scale, shift, eps
        self.bytes = sum(part.nbytes for part in (scale, shift) if part is not None)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self._shape, self._scale, self._shift, self._eps)


class HeadsNorm:
    """Two RMSNorms at once over ``(rows, query heads + key heads, size)``: one call, not two."""

    def __init__(
        self, query: Tensor, key: Tensor, heads: tuple[int, int], eps: float, *, offset: float = 0.0
    ) -> None:
        self.query, self.key, self.eps = query.float() + offset, key.float() + offset, eps
        self._scale = torch.cat((self.query.expand(heads[0], -1), self.key.expand(heads[1], -1)))
        self.bytes = self._scale.nbytes

    def forward(self, x: Tensor) -> Tensor:
        return _normalised(x, self.eps).mul_(self._scale).to(x.dtype)


def _normalised(x: Tensor, eps: float) -> Tensor:
    """``x / rms(x)`` in a float32 tensor of its own."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    factor = length.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    result: Tensor = x * factor
    return result
