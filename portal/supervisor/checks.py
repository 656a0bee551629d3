"""What must be true before anything starts. A refusal names the setting and the remedy."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import redis

from inference_workers.queue import connect
from portal.config import Settings, mask

ROOM_BYTES = 200 << 20
"""What the data folder should have free: logs, the database and Redis' log grow."""

PORT_PATIENCE_S = 3.0
"""The children of a supervisor that was killed a moment ago still let go of their port."""

REDIS_PATIENCE_S = 5.0


class Refused(Exception):
    """Its text is one or two sentences for the person at the console."""


def check_data(settings: Settings) -> None:
    """The data folder is there, ours to write, and has room."""
    data = settings.data
    try:
        for folder in (data, data / "logs", data / "models", data / "redis"):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data) as probe:
            probe.write(b"\0" * 65536)
            probe.flush()
    except OSError as error:
        raise Refused(
            f"DATA={data} can't be written ({error.strerror}). Choose a folder that you may write, "
            "like DATA=./data, or make room on its disk."
        ) from None
    free = shutil.disk_usage(data).free
    if free < ROOM_BYTES:
        raise Refused(
            f"DATA={data} has {free >> 20} MB left on its disk and needs {ROOM_BYTES >> 20}. "
            "Make room, or set DATA to a folder on another disk."
        )


def check_room_for(model: str, needed: int, data: Path) -> None:
    """Room for a model's files that are about to be made (``needed`` bytes)."""
    free = shutil.disk_usage(data).free
    if free < needed:
        raise Refused(
            f"Preparing {model} takes about {needed >> 20} MB, and DATA={data} has {free >> 20} MB "
            "left. Make room, or set DATA to a folder on another disk."
        )


def check_port(settings: Settings) -> None:
    """Nobody else listens there."""
    give_up = time.monotonic() + PORT_PATIENCE_S
    while problem := _bind(settings.host, settings.port):
        if problem.errno != getattr(os, "EADDRINUSE", 98) or time.monotonic() > give_up:
            break
        time.sleep(0.1)
    if problem is None:
        return
    if isinstance(problem, socket.gaierror):
        raise Refused(f"HOST={settings.host} is not an address of this machine ({problem}).")
    raise Refused(
        f"PORT={settings.port} can't be used on HOST={settings.host} ({problem.strerror}). "
        f"Choose another, for example: make run PORT={settings.port + 1} DATA=./data2"
    )


def _bind(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        return error
    return None


def check_redis(url: str, *, patience: float = REDIS_PATIENCE_S) -> str:
    """The server's version, as soon as it answers."""
    give_up = time.monotonic() + patience
    while True:
        try:
            with contextlib.closing(connect(url, retries=0)) as client:
                info = client.info("server")
        except (redis.exceptions.RedisError, OSError, ValueError) as error:
            loading = isinstance(error, redis.exceptions.BusyLoadingError)
            if not loading and time.monotonic() > give_up:
                raise Refused(
                    f"REDIS_URL={mask(url)} does not answer ({error}). Start that server, correct "
                    "the address, or leave REDIS_URL empty to use the embedded one."
                ) from None
            time.sleep(0.05)
        else:
            assert isinstance(info, dict)
            return str(info.get("valkey_version") or info["redis_version"])
