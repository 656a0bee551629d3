"""Answers as server-sent events, in OpenAI's dialect."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from django.http import StreamingHttpResponse

from inference_workers.contract import Usage
from portal.api.answers import Form, Piece, total
from portal.api.attachment import Attachment
from portal.api.errors import ApiError
from portal.api.following import Followed, follow_all
from portal.jobs.reader import SILENT

logger = logging.getLogger(__name__)

KEEPALIVE = b": keep-alive\n\n"
"""For proxies, which cut a connection on which nothing comes; clients skip comments."""
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
DONE = b"data: [DONE]\n\n"
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Kept, because ``json.dumps`` makes a new one for each frame."""


def stream_response(
    form: Form, parts: Sequence[Followed], attachment: Attachment, *, usage_wanted: bool
) -> StreamingHttpResponse:
    """The answer of ``parts`` as it is made; the job stops when the reader leaves."""
    frames = attached(_frames(form, parts, usage_wanted), attachment)
    return StreamingHttpResponse(
        frames,
        content_type="text/event-stream; charset=utf-8",
        headers=STREAM_HEADERS,
    )


async def attached(
    frames: AsyncGenerator[bytes, None], attachment: Attachment
) -> AsyncIterator[bytes]:
    try:
        async with aclosing(frames):
            async for frame in frames:
                yield frame
        await attachment.done()
    finally:
        attachment.leave()


async def _frames(
    form: Form, parts: Sequence[Followed], usage_wanted: bool
) -> AsyncGenerator[bytes, None]:
    usages: list[Usage] = []
    opened: set[int] = set()
    try:
        async with aclosing(follow_all(parts)) as steps:
            async for step in steps:
                if isinstance(step, Usage):
                    usages.append(step)
                elif isinstance(step, Piece):
                    for frame in _piece_frames(form, step, opened):
                        yield frame
                else:
                    yield KEEPALIVE if step == SILENT else _comment(step.state, step.position)
        if usage_wanted:
            yield _frame(form.usage_chunk(total(usages)))
        yield DONE
    except ApiError as error:
        yield _frame(error.body())
    except Exception:
        logger.exception("stream_error")
        yield _frame(ApiError(500, "The stream broke on our side.", code="internal_error").body())


def _piece_frames(form: Form, piece: Piece, opened: set[int]) -> Iterator[bytes]:
    """A choice's first piece opens it; a piece in which nothing became certain is not sent."""
    if piece.index not in opened:
        opened.add(piece.index)
        head = form.head(piece.index)
        if head is not None:
            yield _frame(head)
    if piece.text or piece.tokens or piece.finish:
        chunk = form.chunk(piece)
        if chunk is not None:
            yield _frame(chunk)


def _frame(body: dict[str, Any]) -> bytes:
    return b"data: " + _json(body).encode() + b"\n\n"


def _comment(state: str, position: int | None) -> bytes:
    """Something for a person who reads the wire."""
    return f": {state}{f', position {position}' if position else ''}\n\n".encode()
