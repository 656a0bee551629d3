"""How a recorded job's log is kept in its row: compressed, entry by entry, numbers implied.

A replay from any ``seq`` must equal what the live log said, so entries are never merged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from inference_workers.contract import Delta, Entry
from inference_workers.queue import JobLog

LEVEL = 6
PIECE = 1 << 16
"""Bytes that are unpacked at a time."""
CHUNK = 1 << 13
"""Bytes that are given to be unpacked: what isn't needed yet of them is copied."""


def pack(entries: Sequence[Entry]) -> bytes:
    """One line for each entry: epoch, time, event. Numbers run from 1 without gaps."""
    for number, entry in enumerate(entries, start=1):
        if entry.seq != number:
            raise ValueError(f"entry {number} has number {entry.seq}")
    lines = (f"{entry.epoch} {entry.at:.3f} {entry.text}" for entry in entries)
    return zlib.compress("\n".join(lines).encode(), LEVEL)


def unpack(blob: bytes | memoryview | None, after: int = 0) -> Iterator[Entry]:
    """The entries with a ``seq`` above ``after``, as they are asked for: of a long log, which a
    slow reader may be at for minutes, no more than a piece is unpacked and one entry parsed."""
    if not blob:
        return
    for line, seq in zip(_lines(memoryview(blob)), count(1), strict=False):
        if seq > after:
            epoch, at, event = line.split(b" ", 2)
            yield Entry(seq=seq, epoch=int(epoch), at=float(at), text=event.decode())


def _lines(blob: memoryview) -> Iterator[bytes]:
    begun = b""
    for piece in _pieces(blob):
        *lines, begun = (begun + piece).split(b"\n")
        yield from lines
    yield begun


def _pieces(blob: memoryview) -> Iterator[bytes]:
    unpacking = zlib.decompressobj()
    for start in range(0, len(blob), CHUNK):
        chunk = bytes(blob[start : start + CHUNK])
        while chunk:
            yield unpacking.decompress(chunk, PIECE)
            chunk = unpacking.unconsumed_tail
    yield unpacking.flush()
    if not unpacking.eof:
        raise zlib.error("a log in the database breaks off")


def whole(log: JobLog, job_id: str) -> Iterator[Entry]:
    """All that Redis has of a job's log, page by page."""
    after = 0
    while page := log.read(job_id, after):
        yield from page
        after = page[-1].seq


def text_of(entries: Iterable[Entry], choice: int = 0) -> str:
    """What one choice says."""
    events = (entry.event for entry in entries)
    return "".join(e.text for e in events if isinstance(e, Delta) and e.choice == choice)
