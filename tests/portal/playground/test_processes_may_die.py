"""Any of our processes is killed in mid-answer; the page sees a pause, never a gap or a repeat."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from websockets.exceptions import WebSocketException

from tests.portal.playground.page import ENDS, Page, hear, say, text_of
from tests.running import Running

# Processes are started from the main thread: they end with the thread that started them.
pytestmark = pytest.mark.slow
TOKENS = 150


@pytest.fixture(scope="module")
def system() -> Iterator[Running]:
    with Running(step=0.02) as running:
        yield running


@pytest.fixture
async def page(system: Running) -> AsyncIterator[Page]:
    async with Page(system.url) as visitor:
        yield visitor


class Reader:
    """Follows one job through everything, as the page does: reconnects from the last number."""

    def __init__(self, page: Page, job: str) -> None:
        self.page, self.job = page, job
        self.entries: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self._heard = asyncio.Condition()

    async def run(self) -> None:
        while not self.ended:
            try:
                await self._connected()
            except (OSError, WebSocketException):
                await asyncio.sleep(0.1)

    @property
    def ended(self) -> bool:
        return bool(self.entries) and self.entries[-1]["event"]["type"] in ENDS

    async def _connected(self) -> None:
        async with self.page.socket() as socket:
            await say(socket, type="watch", job=self.job, after=len(self.entries))
            while not self.ended:
                message = await hear(socket)
                async with self._heard:
                    if message["type"] == "entry":
                        self.entries.append(message)
                    elif message["type"] == "notice":
                        self.notices.append(message["state"])
                    self._heard.notify_all()
                if message["type"] == "entry":
                    await say(socket, type="ack", job=self.job, seq=message["seq"])

    async def until(self, seen: Callable[[], bool]) -> None:
        async with self._heard:
            await self._heard.wait_for(seen)


async def begin(page: Page) -> tuple[Reader, asyncio.Task[None], str]:
    conversation = await page.begin()
    made = await page.ask(conversation, "好a🙂", settings={"max_tokens": TOKENS})
    reader = Reader(page, made["job"]["id"])
    task = asyncio.create_task(reader.run())
    await reader.until(lambda: len(reader.entries) >= 20)
    return reader, task, conversation


def whole(reader: Reader) -> None:
    """Every number once, every token once, the text that an undisturbed run makes."""
    assert [e["seq"] for e in reader.entries] == list(range(1, len(reader.entries) + 1))
    deltas = [e["event"] for e in reader.entries if e["event"]["type"] == "delta"]
    firsts = [delta.get("first", 0) for delta in deltas if delta.get("token_ids")]
    assert firsts == list(range(TOKENS))
    expected = ("好a🙂".encode() * TOKENS)[:TOKENS].decode(errors="replace")
    assert text_of(reader.entries) == expected
    assert reader.entries[-1]["event"]["type"] == "finished"


def billed(system: Running) -> tuple[int, int]:
    """Jobs and completion tokens in the roll-up."""
    database = sqlite3.connect(Path(system.environment["DATA"], "db.sqlite3"), timeout=10)
    row = database.execute("SELECT sum(jobs), sum(completion_tokens) FROM usage_usagehour")
    jobs, tokens = row.fetchone()
    database.close()
    return jobs or 0, tokens or 0


async def recorded(page: Page, conversation: str) -> dict[str, Any]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = (await page.call("GET", f"conversations/{conversation}")).json()
        if found["messages"][-1]["job"]["state"] != "open":
            return dict(found["messages"][-1])
        await asyncio.sleep(0.1)
    raise TimeoutError


async def test_the_worker_is_killed(system: Running, page: Page) -> None:
    reader, task, _ = await begin(page)
    system.stop("worker", signal.SIGKILL)
    async with asyncio.timeout(10):
        await reader.until(lambda: "resuming" in reader.notices)
    system.start("worker")
    async with asyncio.timeout(40):
        await task
    whole(reader)


async def test_the_portal_is_killed(system: Running, page: Page) -> None:
    reader, task, _ = await begin(page)
    system.stop("portal", signal.SIGKILL)
    system.start("portal")
    async with asyncio.timeout(40):
        await task
    whole(reader)
    system.wait_ready()


async def test_the_keeper_is_killed_and_the_job_is_billed_once(system: Running, page: Page) -> None:
    before = billed(system)
    reader, task, conversation = await begin(page)
    system.stop("tasks", signal.SIGKILL)
    await task
    whole(reader)
    assert billed(system) == before
    system.start("tasks")
    answer = await recorded(page, conversation)
    assert answer["text"] == text_of(reader.entries)
    assert billed(system) == (before[0] + 1, before[1] + TOKENS)


async def test_all_of_redis_data_is_lost(system: Running, page: Page) -> None:
    """R4: the job runs again from its row; the reader goes on where it was."""
    before = billed(system)
    reader, task, conversation = await begin(page)
    with Redis.from_url(system.valkey.url) as redis:
        redis.flushall()
    async with asyncio.timeout(30):
        await task
    whole(reader)
    await recorded(page, conversation)
    assert billed(system) == (before[0] + 1, before[1] + TOKENS)


async def test_redis_is_killed_and_comes_back_empty(system: Running, page: Page) -> None:
    reader, task, conversation = await begin(page)
    system.valkey.stop(signal.SIGKILL)
    refused = await page.try_ask(conversation)
    assert refused.status_code in (429, 503)
    assert int(refused.headers["Retry-After"]) >= 1
    system.valkey.start()
    async with asyncio.timeout(30):
        await task
    whole(reader)
    await recorded(page, conversation)
    assert "Traceback" not in system.log("tasks")
