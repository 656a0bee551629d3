"""Kernels of our own in C, for CPUs with AVX2: a few functions over plain addresses.

``python -m inference_workers.native`` builds them with the system's C compiler, in seconds; ``make
run`` does so by itself where there is a compiler. Without them everything works, slower, in torch.
``docs/adr/0011-kernels-of-our-own.md`` says why they exist; ``kernels/*.c`` say what each does.
Importing this costs no torch.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_long, c_void_p

from inference_workers.native.build import library_path


class Part(Structure):
    """``lm_part``: a packed matrix, and where its outputs begin in a row of the result."""

    _fields_ = [
        ("kind", c_int32),
        ("outputs", c_int32),
        ("columns", c_int32),
        ("at", c_int32),
        ("first", c_void_p),
        ("second", c_void_p),
    ]


class Store(Structure):
    """``lm_store``: one layer's keys and values."""

    _fields_ = [
        ("keys", c_void_p),
        ("values", c_void_p),
        ("half", c_int64),
        ("block", c_int64),
        ("heads", c_int64),
        ("key_size", c_int64),
        ("value_size", c_int64),
    ]


_SIGNATURES: dict[str, list[type]] = {
    "lm_set_threads": [c_int],
    "lm_choose": [c_int],
    "lm_linear": [c_void_p, c_long, c_long, c_void_p, c_int, c_void_p, c_void_p, c_long],
    "lm_gated_linear": [c_void_p, c_long, c_long, c_void_p, c_int, c_void_p],
    "lm_greedy": [
        *(c_void_p, c_long, c_long, c_void_p, c_void_p, c_long),
        *(c_void_p, c_void_p),
    ],
    "lm_look_up": [c_void_p, c_void_p, c_long, c_float, c_void_p],
    "lm_rms_norm": [c_void_p, c_long, c_long, c_void_p, c_float, c_void_p, c_void_p],
    "lm_gated": [c_void_p, c_long, c_long, c_int, c_void_p],
    "lm_place_heads": [
        *(c_void_p, c_long, c_long, c_void_p, c_void_p, c_float, c_void_p),
        *(c_void_p, c_void_p, c_void_p, POINTER(Store), c_void_p),
    ],
    "lm_attend": [
        *(c_void_p, c_long, POINTER(Store), c_void_p, c_long, c_void_p, c_long),
        *(c_void_p, c_float, c_void_p),
    ],
}
LARGEST_HEAD = 1024


class Kernels:
    """The functions, twice. ``long`` ones let Python's other threads run meanwhile; ``short`` ones
    don't, because getting the interpreter back may take longer than they do."""

    def __init__(self, path: str) -> None:
        self.long, self.short = ctypes.CDLL(path), ctypes.PyDLL(path)
        for library in (self.long, self.short):
            for name, arguments in _SIGNATURES.items():
                function = getattr(library, name)
                function.argtypes = arguments
                function.restype = c_int

    def to(self, operations: int) -> ctypes.CDLL:
        """The library for a call of so many multiplications."""
        return self.long if operations > SHORT else self.short


SHORT = 1 << 24
"""Multiplications that take about 0.2 ms."""


@functools.cache
def kernels() -> Kernels | None:
    """The kernels, or ``None`` where they aren't built or the processor lacks AVX2."""
    path = library_path()
    if platform.machine() != "x86_64" or not path.exists():
        return None
    found = Kernels(str(path))
    return found if _choose(found.long) else None


def set_threads(count: int) -> None:
    """On how many cores kernels compute, the caller's included."""
    found = kernels()
    if found is not None:
        found.short.lm_set_threads(count)


def _choose(found: ctypes.CDLL) -> bool:
    """Take the fastest set of instructions that computes what AVX2 does."""
    if not found.lm_choose(2):
        return False
    from inference_workers.native.trial import results

    truth = results(found)
    if found.lm_choose(512) and results(found) != truth:
        found.lm_choose(2)
    return True
