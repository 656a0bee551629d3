"""What the machine can do at best, measured in the same run as everything else.

Each figure is the best of several short repeats: a roofline is what could be reached, and whatever
disturbs a repeat only makes it smaller.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from inference_workers.layers.linear import Packed, PackedProduct
from inference_workers.layers.packing import Q4M, Q8
from inference_workers.native import kernels, set_threads

SECONDS = 0.25
"""How long one figure is looked for."""
READ_BYTES = 1 << 28
"""Far more than any cache holds."""


def measure() -> dict[str, float]:
    """``bandwidth`` in bytes a second, read on all cores; ``float32``, ``bfloat16`` and ``int8`` in
    operations a second (a multiplication and an addition are two) on data that the caches hold.
    ``int8`` is that of our own product, activations' quantisation included; without kernels there
    is none."""
    set_threads(torch.get_num_threads())
    found = {"bandwidth": _bandwidth(), "float32": _matmul(torch.float32)}
    found["bfloat16"] = _matmul(torch.bfloat16)
    if kernels() is not None:
        found["int8"] = max(
            _product(packed, rows) for packed in (_packed(4), _packed(8)) for rows in (32, 64, 256)
        )
    return found


def _best(function: Callable[[], object], work: float) -> float:
    """``work`` a second in the fastest of several calls."""
    function()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return work / min(taken)


def _bandwidth() -> float:
    values = torch.ones(READ_BYTES // 4)
    return max(_best(values.sum, READ_BYTES), _best(values.amax, READ_BYTES))


def _matmul(dtype: torch.dtype) -> float:
    """Of 512 by 512 matrices: 1 MB each in float32."""
    a, b = (torch.randn(512, 512).to(dtype) for _ in range(2))
    return _best(lambda: a @ b, 2 * 512**3)


def _packed(bits: int, rows: int = 512, columns: int = 640) -> Packed:
    """A matrix of random codes, all its factors 1."""
    kind = Q4M if bits == 4 else Q8
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, kind.bytes(rows, columns), dtype=np.uint8)
    tiles = data[: rows * columns // 512 * kind.first].reshape(-1, kind.first)
    factors = np.ones((len(tiles), 16 * kind.halves), np.float16)
    tiles[:, : 32 * kind.halves] = factors.view(np.uint8)
    return Packed(kind, torch.from_numpy(data), rows, columns)


def _product(packed: Packed, rows: int) -> float:
    product = PackedProduct([packed])
    x = torch.randn(rows, packed.columns)
    return _best(lambda: product.forward(x), 2 * rows * packed.rows * packed.columns)
