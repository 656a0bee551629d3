"""Database work from async code: in one of a few threads that stay, on a good connection.

Code that asgiref calls thread-sensitive gets a thread of its own for each request, and with it a
new connection. To SQLite that means to open the file and to read the whole schema, which costs more
than most of our statements; here a thread keeps its connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import SyncToAsync
from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 12
"""Fewer than PostgreSQL's pool has connections, so that pages find some, too."""

_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="database")


class _InPool(SyncToAsync[..., Any]):
    def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().thread_handler(loop, *args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            for connection in connections.all(initialized_only=True):
                if connection.vendor != "sqlite" or connection.errors_occurred:
                    connection.close()  # PostgreSQL's goes back to its pool, which checks it


def in_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """``function`` to be awaited. Its context is the caller's."""
    pooled = _InPool(function, thread_sensitive=False, executor=_pool)
    return cast(Callable[P, Awaitable[T]], pooled)
