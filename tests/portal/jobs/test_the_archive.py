"""A recorded log comes back entry by entry, and a long one little by little."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_workers.contract import Delta, Entry, Finished, TokenLogprob, Usage
from portal.jobs import archive


def a_log(texts: list[str]) -> list[Entry]:
    deltas = [Delta(first=n, token_ids=(n,), text=text) for n, text in enumerate(texts)]
    events = [*deltas, Finished(reason="stop", usage=Usage(completion_tokens=len(texts)))]
    return [Entry(seq=n, epoch=1, at=float(n), event=e) for n, e in enumerate(events, start=1)]


@given(texts=st.lists(st.text()), after=st.integers(0, 12))
def test_what_is_packed_comes_back_from_any_number(texts: list[str], after: int) -> None:
    log = a_log(texts)
    assert list(archive.unpack(archive.pack(log), after)) == log[after:]


def test_a_log_of_many_pieces_comes_back_whole() -> None:
    log = a_log(["好🙂\n" * 5000, *(f"{n}" for n in range(20_000))])
    assert list(archive.unpack(archive.pack(log))) == log


def test_a_reader_at_the_beginning_of_a_long_log_holds_little_of_it() -> None:
    top = tuple((n, -0.5 * n) for n in range(20))
    scores = (TokenLogprob(token_id=1, logprob=-0.1, top=top),)
    events = [Delta(first=n, token_ids=(1,), logprobs=scores) for n in range(8000)]
    blob = archive.pack([Entry(seq=n, epoch=1, event=e) for n, e in enumerate(events, start=1)])
    tracemalloc.start()
    try:
        entries = archive.unpack(blob)
        assert len(list(islice(entries, 32))) == 32
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20
    assert next(entries).seq == 33


def test_readers_of_a_log_that_hardly_packs_hold_little_beside_it() -> None:
    draw = random.Random(1)
    events = [
        Delta(
            first=n,
            token_ids=(1,),
            logprobs=(
                TokenLogprob(token_id=1, logprob=-draw.random(), top=((2, -draw.random()),)),
            ),
        )
        for n in range(20_000)
    ]
    blob = archive.pack([Entry(seq=n, epoch=1, event=e) for n, e in enumerate(events, start=1)])
    assert len(blob) > 400_000
    tracemalloc.start()
    try:
        readers = [archive.unpack(blob) for _ in range(20)]
        assert [next(entries).seq for entries in readers] == [1] * 20
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20 * 200_000


def test_a_log_that_breaks_off_is_said_so() -> None:
    blob = archive.pack(a_log([f"{n}" for n in range(1000)]))
    with pytest.raises(zlib.error):
        list(archive.unpack(blob[: len(blob) // 2]))
