"""Answers in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from django.http import HttpResponse, JsonResponse

from inference_workers.contract import Usage
from portal.api.answers import Form, Piece, joined, total
from portal.api.attachment import Attachment
from portal.api.following import Followed, follow_all


async def whole_response(
    form: Form, parts: Sequence[Followed], attachment: Attachment
) -> HttpResponse:
    """Waits for the jobs' ends; raises ``ApiError`` when one failed."""
    pieces: list[Piece] = []
    usages: list[Usage] = []
    try:
        async with aclosing(follow_all(parts)) as steps:
            async for step in steps:
                if isinstance(step, Piece):
                    pieces.append(step)
                elif isinstance(step, Usage):
                    usages.append(step)
    except asyncio.CancelledError:
        attachment.leave()
        raise
    finally:
        await attachment.done()
    count = sum(part.count for part in parts)
    return JsonResponse(form.whole(joined(pieces, count), total(usages)))
