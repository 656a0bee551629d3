"""Database work of async code runs in threads that stay, on connections that are good."""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import ContextVar

import pytest
from django.db import Error, connection

from portal.threads import THREADS, in_thread

pytestmark = pytest.mark.django_db(transaction=True)
said: ContextVar[str] = ContextVar("said")


def ask() -> tuple[int, object]:
    """The thread and its connection."""
    connection.ensure_connection()
    return threading.get_ident(), connection.connection


def break_off() -> int:
    connection.ensure_connection()
    connection.connection.close()
    with suppress(Error), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return threading.get_ident()


async def asked(times: int = 60) -> dict[int, list[object]]:
    """The connections that each thread had."""
    found: dict[int, list[object]] = {}
    for _ in range(times):
        thread, used = await in_thread(ask)()
        found.setdefault(thread, []).append(used)
    return found


async def test_a_thread_keeps_its_connection() -> None:
    found = await asked()
    assert threading.get_ident() not in found
    assert len(found) <= THREADS
    assert all(used.count(used[0]) == len(used) for used in found.values())


async def test_a_connection_that_broke_is_replaced() -> None:
    before = await asked()
    broken = await in_thread(break_off)()
    after = await asked()
    assert after.pop(broken)[0] is not before[broken][0]
    assert all(used[0] is before[thread][0] for thread, used in after.items() if thread in before)


async def test_the_callers_context_goes_along() -> None:
    said.set("hello")
    assert await in_thread(said.get)() == "hello"
