"""A caller of the API, and a worker that says what a test wants, on the real queue and logs."""

from __future__ import annotations

import json
from typing import Any

from asgiref.sync import sync_to_async
from django.test import AsyncClient

from inference_workers.contract import Job
from tests.portal.jobs.conftest import Worker


class Caller:
    """Sends JSON with a key; ``answered`` lets a scripted worker write the answer."""

    def __init__(self, key: str, worker: Worker) -> None:
        self.client = AsyncClient()
        self.headers = {"Authorization": f"Bearer {key}"}
        self.worker = worker
        self.job: Job | None = None

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        call = getattr(self.client, method)
        given = {"headers": self.headers | headers}
        if body is not None:
            given |= {"data": json.dumps(body), "content_type": "application/json"}
        return await call(path, **given)

    async def answered(self, path: str, body: dict[str, Any], *texts: str) -> list[dict[str, Any]]:
        """The events of a streamed answer that consists of ``texts``."""
        response = await self.send("post", path, {"model": "echo", "stream": True} | body)
        assert response.status_code == 200, response.content
        self.job = await sync_to_async(self.worker.answer)(*texts)
        return await events(response)


async def events(response: Any) -> list[dict[str, Any]]:
    raw = b"".join([chunk async for chunk in response.streaming_content]).decode()
    lines = [line[6:] for line in raw.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
