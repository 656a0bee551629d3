"""Database work from async code: in a thread, on a connection that is checked before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar, cast

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """channels' ``database_sync_to_async`` with its types kept."""
    return cast(Callable[P, Awaitable[T]], database_sync_to_async(function))
