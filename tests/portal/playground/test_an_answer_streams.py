"""The whole way: page, portal, queue, worker, log, socket, row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import websockets

from tests.portal.playground.page import Page, follow, hear, say, text_of
from tests.running import Running


@pytest.fixture
async def visitor(running: Running) -> AsyncIterator[Page]:
    async with Page(running.url) as page:
        yield page


async def recorded(page: Page, conversation: str) -> dict:
    """The conversation once its last answer is in its row."""
    for _ in range(200):
        found = (await page.call("GET", f"conversations/{conversation}")).json()
        if found["messages"][-1]["job"]["state"] != "open":
            return found
        await asyncio.sleep(0.02)
    raise TimeoutError


async def test_tokens_arrive_one_by_one_and_the_row_keeps_the_answer(visitor: Page) -> None:
    conversation = await visitor.begin()
    made = await visitor.ask(conversation, "grüße ", settings={"max_tokens": 20})
    async with visitor.socket() as socket:
        entries = await follow(socket, made["job"]["id"])
    assert [e["seq"] for e in entries] == list(range(1, len(entries) + 1))
    assert entries[0]["event"]["type"] == "started"
    assert entries[-1]["event"]["usage"]["completion_tokens"] == 20
    assert text_of(entries).startswith("grüße grüße")
    found = await recorded(visitor, conversation)
    answer = found["messages"][1]
    assert found["title"] == "grüße"
    assert answer["text"] == text_of(entries)
    assert answer["job"]["last_seq"] == entries[-1]["seq"]
    assert answer["job"]["stats"]["completion_tokens"] == 20


async def test_a_prefix_and_the_rest_are_the_whole_wherever_the_cut_is(visitor: Page) -> None:
    """R7, short: random cuts, each on a new socket, live and after recording."""
    rng = random.Random(7)
    conversation = await visitor.begin()
    made = await visitor.ask(conversation, "a好🙂", settings={"max_tokens": 60})
    job = made["job"]["id"]

    async def live() -> list[dict]:
        got: list[dict] = []
        while not got or got[-1]["event"]["type"] != "finished":
            async with visitor.socket() as socket:
                await say(socket, type="watch", job=job, after=len(got))
                for _ in range(rng.randint(1, 9)):
                    message = await hear(socket)
                    if message["type"] == "entry":
                        got.append(message)
                        if message["event"]["type"] == "finished":
                            break
        return got

    readers = await asyncio.gather(*(live() for _ in range(6)))
    whole = readers[0]
    assert all(reader == whole for reader in readers)
    async with visitor.socket() as socket:
        for cut in range(len(whole)):
            assert await follow(socket, job, cut) == whole[cut:]
    await recorded(visitor, conversation)
    async with visitor.socket() as socket:
        for cut in range(len(whole)):
            assert await follow(socket, job, cut) == whole[cut:]


async def test_stop_ends_the_answer_and_keeps_what_was_made(visitor: Page) -> None:
    conversation = await visitor.begin()
    made = await visitor.ask(conversation, "abc", settings={"max_tokens": 2000})
    job = made["job"]["id"]
    async with visitor.socket() as socket:
        await say(socket, type="watch", job=job, after=0)
        entries = []
        while len(entries) < 5:
            message = await hear(socket)
            if message["type"] == "entry":
                entries.append(message)
        await say(socket, type="ack", job=job, seq=entries[-1]["seq"])
        stopped = await visitor.call("POST", f"jobs/{job}/cancel")
        assert stopped.json() == {"result": "flagged"}
        while entries[-1]["event"]["type"] == "delta" or len(entries) < 6:
            message = await hear(socket)
            entries.append(message)
            await say(socket, type="ack", job=job, seq=message["seq"])
    assert entries[-1]["event"]["type"] == "cancelled"
    made_tokens = entries[-1]["event"]["usage"]["completion_tokens"]
    assert 0 < made_tokens < 1000
    answer = (await recorded(visitor, conversation))["messages"][1]
    assert answer["job"]["state"] == "cancelled"
    assert len(answer["text"]) == made_tokens


async def test_a_browser_that_goes_away_does_not_stop_the_answer(visitor: Page) -> None:
    conversation = await visitor.begin()
    made = await visitor.ask(conversation, "abc", settings={"max_tokens": 100})
    async with visitor.socket() as socket:
        await say(socket, type="watch", job=made["job"]["id"], after=0)
        await hear(socket)
    answer = (await recorded(visitor, conversation))["messages"][1]
    assert answer["job"]["state"] == "finished"
    assert len(answer["text"]) == 100


async def test_another_visitor_sees_nothing_of_it(running: Running, visitor: Page) -> None:
    conversation = await visitor.begin()
    made = await visitor.ask(conversation)
    job = made["job"]["id"]
    async with Page(running.url) as stranger:
        await stranger.begin()
        assert (await stranger.call("GET", f"conversations/{conversation}")).status_code == 404
        assert (await stranger.call("POST", f"jobs/{job}/cancel")).status_code == 404
        assert (await stranger.try_ask(conversation)).status_code == 404
        async with stranger.socket() as socket:
            await say(socket, type="watch", job=job)
            assert (await hear(socket))["code"] == "not_found"
            await say(socket, type="cancel", job=job)
            assert (await hear(socket))["code"] == "not_found"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None, "http://127.0.0.1:1"])
async def test_a_socket_from_another_page_is_refused(visitor: Page, origin: str | None) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with visitor.socket(origin=origin):
            pass
    assert refusal.value.response.status_code == 403
