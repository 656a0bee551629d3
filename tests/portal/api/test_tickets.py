"""A ticket opens one socket, once, soon; a key that ends ends the socket."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest
import websockets
from redis import Redis

from tests.portal.playground.page import Page, follow, hear, say, text_of
from tests.running import MODEL, Running


@pytest.fixture(scope="module")
def key(running: Running) -> str:
    return running.make_key("ticket@example.org")


def call(running: Running, key: str, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx2.request(
        method, f"{running.url}/api/v1/{path}", json=body, headers=headers, timeout=30
    )
    assert answer.status_code < 300, answer.text
    return answer.json()


def socket(url: str, **options: Any) -> websockets.connect:
    return websockets.connect(url, max_queue=None, **options)


async def refused(url: str, **options: Any) -> int:
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with socket(url, **options):
            pass
    return int(caught.value.response.status_code)


async def test_many_jobs_on_one_socket_without_an_origin(running: Running, key: str) -> None:
    ticket = call(running, key, "POST", "tickets")
    body = {"model": MODEL, "prompt": "abc", "sampling": {"max_tokens": 9, "temperature": 0}}
    jobs = [call(running, key, "POST", "jobs", body)["id"] for _ in range(3)]
    async with socket(ticket["url"]) as opened:
        for job in jobs:
            assert text_of(await follow(opened, job)) == "abcabcabc"
        tail = await follow(opened, jobs[0], after=5)
        assert tail[0]["seq"] == 6


async def test_a_ticket_opens_once_and_not_for_ever(running: Running, key: str) -> None:
    ticket = call(running, key, "POST", "tickets")
    async with socket(ticket["url"]):
        pass
    assert await refused(ticket["url"]) == 403
    late = call(running, key, "POST", "tickets")
    with Redis.from_url(running.valkey.url) as redis:
        for name in redis.keys("llmasos:ticket:*"):
            assert 0 < redis.ttl(name) <= late["expires_in"]
            redis.pexpire(name, 1)
    await asyncio.sleep(0.05)
    assert await refused(late["url"]) == 403
    assert await refused(late["url"].partition("=")[0] + "=made-up") == 403


async def test_cookies_do_not_mend_a_bad_ticket(running: Running, key: str) -> None:
    async with Page(running.url) as page:
        await page.sign_in("ticket@example.org")
        cookies = "; ".join(f"{name}={value}" for name, value in page.http.cookies.items())
        url = running.url.replace("http", "ws") + "/ws/jobs?ticket="
        assert await refused(url, additional_headers={"Cookie": cookies}) == 403
        assert await refused(url.partition("?")[0], additional_headers={"Cookie": cookies}) == 403


async def test_another_teams_job_is_not_there(running: Running, key: str) -> None:
    other = running.make_key("stranger@example.org")
    body = {"model": MODEL, "prompt": "abc", "sampling": {"max_tokens": 1}}
    job = call(running, other, "POST", "jobs", body)["id"]
    async with socket(call(running, key, "POST", "tickets")["url"]) as opened:
        for kind in ("watch", "cancel"):
            await say(opened, type=kind, job=job)
            assert (await hear(opened))["code"] == "not_found"


async def test_a_revoked_key_closes_its_socket_within_a_second(running: Running, key: str) -> None:
    mine = call(running, key, "POST", "keys", {"name": "soon gone"})
    unused, used = (call(running, mine["secret"], "POST", "tickets")["url"] for _ in range(2))
    async with socket(used) as opened:
        call(running, key, "DELETE", f"keys/{mine['id']}")
        began = time.monotonic()
        with pytest.raises(websockets.ConnectionClosed):
            async with asyncio.timeout(5):
                await opened.recv()
        assert opened.close_code == 4401
        assert time.monotonic() - began < 1
    assert await refused(unused) == 403
