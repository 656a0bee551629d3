"""The event stream itself: what is sent while nothing happens, and how an error looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from inference_workers.contract import Delta, Entry, Failed, Started
from portal.api import streaming
from portal.api.answers import CompletionForm
from portal.api.attachment import Attachment
from portal.api.following import Followed
from portal.jobs import reader
from portal.jobs.models import Job


async def test_silence_is_broken_by_comments() -> None:
    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"one"
        await asyncio.sleep(0.25)
        yield b"two"

    kept = [frame async for frame in streaming.with_keepalive(frames(), 0.1)]
    assert kept == [b"one", streaming.KEEPALIVE, streaming.KEEPALIVE, b"two"]


async def test_a_cut_stream_closes_what_it_reads() -> None:
    closed = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            await asyncio.sleep(60)
        finally:
            closed.set()

    stream = streaming.with_keepalive(frames(), 0.01)
    assert [await anext(stream), await anext(stream)] == [b"one", streaming.KEEPALIVE]
    await stream.aclose()
    assert closed.is_set()


async def test_a_job_that_fails_in_mid_stream_ends_it_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[Any] = [
        Started(worker="w"),
        Delta(first=0, token_ids=(1,), text="Hel"),
        Failed(code="worker_lost", message="The worker crashed twice on this request."),
    ]

    async def read(job: Job) -> AsyncIterator[Entry | reader.Notice]:
        yield reader.Notice("queued", position=3)
        for seq, event in enumerate(events, 1):
            yield Entry(seq=seq, epoch=1, event=event)

    monkeypatch.setattr(reader, "events", read)
    form = CompletionForm("cmpl-1", 0, "echo", None, False)  # type: ignore[arg-type]
    attachment = await Attachment.make([], returning=False, gone=lambda: True)
    part = Followed(Job(), first=0, count=1, scored=False)
    response = streaming.stream_response(form, [part], attachment, usage_wanted=False)
    frames = [frame async for frame in response]
    assert frames[0] == b": queued, position 3\n\n"
    assert json.loads(frames[1][6:])["choices"][0]["text"] == "Hel"
    error = json.loads(frames[2][6:])["error"]
    assert (error["code"], error["type"]) == ("worker_lost", "server_error")
    assert len(frames) == 3, "no [DONE] after an error"
