"""Loads the Lua scripts beside this file and runs them, from sync and from async code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoScriptError

from inference_workers.queue.clients import AsyncRedis

Argument = str | int | float | bytes
_FOLDER = Path(__file__).parent / "lua"


@cache
def _source(name: str) -> tuple[str, str]:
    """Text of a script with the shared part in front, and its SHA-1."""
    text = "\n".join((_FOLDER / f"{part}.lua").read_text() for part in ("common", name))
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def run(client: redis.Redis, name: str, *args: Argument) -> Any:
    """Run script ``name``; a server that doesn't know it (restarted, say) is taught it."""
    text, sha = _source(name)
    try:
        return client.evalsha(sha, 0, *args)
    except NoScriptError:
        return client.eval(text, 0, *args)


async def arun(client: AsyncRedis, name: str, *args: Argument) -> Any:
    """The same on an async client."""
    text, sha = _source(name)
    try:
        return await client.evalsha(sha, 0, *args)
    except NoScriptError:
        return await client.eval(text, 0, *args)


def texts(values: Iterable[Any]) -> list[str]:
    """A script's list of strings, typed."""
    return [str(value) for value in values]
