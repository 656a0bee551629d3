"""S2: who signs out, is disabled or leaves the team stops reading within a second, in mid-answer."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import websockets

from tests.portal.playground.page import Page, hear, say
from tests.running import Running

EMAIL = "socket@example.org"


@pytest.fixture(scope="module")
def known(running: Running) -> None:
    running.make_key(EMAIL)


@pytest.fixture
async def user(running: Running, known: None) -> AsyncIterator[Page]:
    async with Page(running.url) as page:
        yield await page.sign_in(EMAIL)


def in_database(running: Running, *statements: str) -> None:
    database = sqlite3.connect(Path(running.environment["DATA"], "db.sqlite3"), timeout=10)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


USER = f"(SELECT id FROM accounts_user WHERE email = '{EMAIL}')"


async def closed_after(page: Page, event: Callable[[], Awaitable[None]]) -> float:
    """Seconds from ``event`` until the socket that was streaming is closed for good."""
    made = await page.ask(await page.begin(), "abc", settings={"max_tokens": 3000})
    async with page.socket() as socket:
        await say(socket, type="watch", job=made["job"]["id"], after=0)
        for _ in range(5):
            assert (await hear(socket))["type"] in ("entry", "notice")
        await event()
        began = time.monotonic()
        with pytest.raises(websockets.ConnectionClosed) as closing:
            async with asyncio.timeout(5):
                while True:
                    message = await hear(socket)
                    if message["type"] == "entry":
                        await say(socket, type="ack", job=made["job"]["id"], seq=message["seq"])
        assert closing.value.rcvd is not None
        assert closing.value.rcvd.code == 4401
    return time.monotonic() - began


async def test_signing_out_closes_the_socket(user: Page) -> None:
    assert await closed_after(user, user.sign_out) <= 1


async def test_disabling_the_user_closes_the_socket(user: Page, running: Running) -> None:
    async def disable() -> None:
        await asyncio.to_thread(
            in_database, running, f"UPDATE accounts_user SET is_active = 0 WHERE id = {USER}"
        )

    try:
        assert await closed_after(user, disable) <= 1
    finally:
        in_database(running, f"UPDATE accounts_user SET is_active = 1 WHERE id = {USER}")


async def test_a_new_password_closes_the_socket(user: Page, running: Running) -> None:
    """The session's proof is bound to the password."""

    async def change() -> None:
        await asyncio.to_thread(
            in_database,
            running,
            f"UPDATE accounts_user SET password = password || 'x' WHERE id = {USER}",
        )

    try:
        assert await closed_after(user, change) <= 1
    finally:
        in_database(
            running,
            f"UPDATE accounts_user SET password = rtrim(password, 'x') WHERE id = {USER}",
        )


async def test_leaving_the_team_closes_the_socket(user: Page, running: Running) -> None:
    async def leave() -> None:
        await asyncio.to_thread(
            in_database, running, f"UPDATE teams_membership SET user_id = -user_id WHERE user_id = {USER}"
        )  # fmt: skip

    try:
        assert await closed_after(user, leave) <= 1
    finally:
        in_database(
            running, f"UPDATE teams_membership SET user_id = -user_id WHERE user_id = -{USER}"
        )


async def test_a_socket_opened_after_signing_out_sees_nothing(user: Page) -> None:
    made = await user.ask(await user.begin())
    await user.sign_out()
    async with user.socket() as socket:
        await say(socket, type="watch", job=made["job"]["id"])
        assert (await hear(socket))["code"] == "not_found"
