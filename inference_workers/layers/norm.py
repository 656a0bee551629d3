"""Root mean square normalisation (arXiv 1910.07467), over the last dimension."""

from __future__ import annotations

import warnings

from torch import Tensor, cat
from torch.nn import functional as F

# A float32 scale on bfloat16 input is meant (see below); torch says once that it is not fused.
warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")


class RMSNorm:
    """``x / rms(x) * scale``, computed in float32, returned in the input's dtype.

    ``offset`` is added to the scale in float32: Gemma stores its scales around 0, and ``1 + scale``
    rounded to bfloat16 would lose most of what was learnt.
    """

    def __init__(self, scale: Tensor, eps: float, *, offset: float = 0.0) -> None:
        self._scale = scale.float() + offset if offset else scale
        self._shape = (scale.shape[-1],)
        self._eps = eps
        self.bytes = self._scale.nbytes

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self._shape, self._scale, self._eps)


class HeadsNorm:
    """Two RMSNorms at once over ``(rows, query heads + key heads, size)``: one call, not two."""

    def __init__(
        self, query: Tensor, key: Tensor, heads: tuple[int, int], eps: float, *, offset: float = 0.0
    ) -> None:
        scales = [query.expand(heads[0], -1), key.expand(heads[1], -1)]
        self._scale = cat(scales).float() + offset
        self._shape = (query.shape[-1],)
        self._eps = eps
        self.bytes = self._scale.nbytes

    def forward(self, x: Tensor) -> Tensor:
        normal = F.rms_norm(x.float(), self._shape, None, self._eps)
        return normal.mul_(self._scale).to(x.dtype)
