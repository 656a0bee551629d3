"""The event stream itself: what is sent while nothing happens, and how an error looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from inference_workers.contract import AnyEvent, Delta, Entry, Failed, Finished, Started, Usage
from portal.api import streaming
from portal.api.answers import CompletionForm
from portal.api.attachment import Attachment
from portal.api.following import Followed, failure
from portal.jobs import reader
from portal.jobs.models import Job


async def streamed(
    monkeypatch: pytest.MonkeyPatch, items: list[AnyEvent | reader.Notice]
) -> list[bytes]:
    """The frames of an answer whose job's log is ``items``."""

    async def read(job: Job) -> AsyncIterator[Entry | reader.Notice]:
        for seq, item in enumerate(items, 1):
            if isinstance(item, reader.Notice):
                yield item
            else:
                yield Entry(seq=seq, epoch=1, event=item)

    monkeypatch.setattr(reader, "events", read)
    form = CompletionForm("cmpl-1", 0, "echo", None, False)  # type: ignore[arg-type]
    attachment = await Attachment.make([], returning=False, gone=lambda: True)
    part = Followed(Job(), first=0, count=1, scored=False)
    response = streaming.stream_response(form, [part], attachment, usage_wanted=False)
    return [frame async for frame in response]


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = Delta(first=0, token_ids=(1,), text="Hel")
    finished = Finished(reason="stop", usage=Usage())
    frames = await streamed(monkeypatch, [reader.SILENT, delta, reader.SILENT, finished])
    assert [frames[0], frames[2]] == [streaming.KEEPALIVE] * 2
    assert b"Hel" in frames[1]
    assert frames[3:] == [streaming.DONE]


async def test_a_cut_stream_closes_what_it_reads() -> None:
    closed = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            await asyncio.sleep(60)
        finally:
            closed.set()

    attachment = await Attachment.make([], returning=False, gone=lambda: True)
    stream = streaming.attached(frames(), attachment)
    assert await anext(stream) == b"one"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert closed.is_set()


async def test_a_job_that_fails_in_mid_stream_ends_it_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = [
        reader.Notice("queued", position=3),
        Started(worker="w"),
        Delta(first=0, token_ids=(1,), text="Hel"),
        Failed(code="worker_lost", message="The worker crashed twice on this request."),
    ]
    frames = await streamed(monkeypatch, items)
    assert frames[0] == b": queued, position 3\n\n"
    assert json.loads(frames[1][6:])["choices"][0]["text"] == "Hel"
    error = json.loads(frames[2][6:])["error"]
    assert (error["code"], error["type"]) == ("worker_lost", "server_error")
    assert len(frames) == 3, "no [DONE] after an error"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_request", 400),
        ("context_length_exceeded", 400),
        ("cache_too_small", 400),
        ("guide_too_complex", 400),
        ("model_changed", 503),
        ("out_of_memory", 503),
        ("worker_lost", 503),
        ("deadline_exceeded", 504),
        ("not_finite", 500),
    ],
)
def test_a_failure_has_the_status_of_whose_fault_it_is(code: str, status: int) -> None:
    error = failure(Failed(code=code, message="What to do."))
    assert (error.status, error.code, error.message) == (status, code, "What to do.")
