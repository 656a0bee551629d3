"""Memory that only a start needs, given back once a worker's engine is there. Linux alone."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

Span = tuple[int, int]
"""A mapping's first address, and the first one behind it."""


def give_back() -> None:
    """Return what the allocator holds free, and pages of libraries' code and constants.

    To import torch is to run 60 MB of code that registers operators, once. Such pages are a file's:
    the kernel brings those back that are used again (about 15 MB, in microseconds each). It would
    take them itself, but only when memory is short, and counts them as the worker's until then.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)
    for start, end in unwritten(Path("/proc/self/smaps").read_text(errors="replace")):
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def unwritten(smaps: str) -> Iterator[Span]:
    """Mappings of files that nobody may write to, or has: what differs from the file would be lost
    with its page. ``smaps`` is as in proc(5)."""
    span: Span | None = None
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            span = None
            if len(words) > 5 and words[1] in ("r-xp", "r--p") and words[5].startswith("/"):
                first, _, last = words[0].partition("-")
                span = int(first, 16), int(last, 16)
        elif span is not None and words[0] == "Anonymous:" and words[1] == "0":
            yield span
