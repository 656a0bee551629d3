"""A worker's settings: from its command line and the environment, checked at start-up.

REDIS_URL                  redis://…, rediss://… or unix:///path/redis.sock
LLMASOS_LEASE_SECONDS      how long a lease lasts (6): the same for all processes
LLMASOS_STALL_SECONDS      how long an engine may stand still with jobs (30)
LLMASOS_NICE               how far the worker steps back for the portal, 0 to 19 (5)
LLMASOS_LOG_LEVEL          debug, info, warning or error (info)
LLMASOS_ECHO_STEP_S        seconds that a step of the echo model takes (0)
LLMASOS_ECHO_CHUNK         prompt tokens that it computes in a step (512)
LLMASOS_ECHO_POISON        1: a prompt with the bytes \\0POISON kills its process (0)
"""

from __future__ import annotations

import argparse
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_workers.errors import ConfigError
from inference_workers.queue import LEASE_SECONDS

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What ``serve`` needs. ``slots``, ``kv_memory`` (bytes) and ``threads`` are ``None`` where the
    engine decides."""

    model: str
    path: Path
    name: str
    redis_url: str
    slots: int | None = None
    kv_memory: int | None = None
    threads: int | None = None
    metrics_port: int | None = None
    lease_seconds: float = LEASE_SECONDS
    stall_seconds: float = 30.0
    nice: int = 5
    log_level: str = "info"
    echo_step_seconds: float = 0.0
    echo_chunk: int = 512
    echo_poison: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``serve``."""
    parser.add_argument("--model", required=True, metavar="ID", help="the model's catalogue id")
    parser.add_argument("--path", required=True, metavar="DIR", help="its prepared folder")
    parser.add_argument("--slots", type=int, metavar="N", help="requests that run together")
    parser.add_argument("--kv-memory", metavar="BYTES", help="memory for the K/V cache, like 2GB")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to compute on")
    parser.add_argument("--name", help="the worker's name; no two live workers may share one")
    parser.add_argument("--metrics-port", type=int, metavar="N", help="serve /metrics on it")


def worker_settings(args: argparse.Namespace, environment: Mapping[str, str]) -> WorkerSettings:
    """Settings from parsed arguments and the environment.

    Raises:
        ConfigError: one of them is wrong; the message names it and says what it may be.
    """
    read = _Reader(environment)
    url = environment.get("REDIS_URL", "")
    if not url.startswith(("redis://", "rediss://", "unix://", "redis+socket://")):
        raise ConfigError(
            f"REDIS_URL is {url!r}. Set it to redis://host:6379/0 or unix:///path/redis.sock."
        )
    level = environment.get("LLMASOS_LOG_LEVEL", "info").lower()
    if level not in LEVELS:
        raise ConfigError(f"LLMASOS_LOG_LEVEL is {level!r}. It may be {', '.join(LEVELS)}.")
    for name in ("slots", "threads", "metrics_port"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}. It must be at least 1.")
    return WorkerSettings(
        model=args.model,
        path=Path(args.path),
        name=args.name or f"{args.model}-{socket.gethostname()}-{secrets.token_hex(3)}",
        redis_url=url,
        slots=args.slots,
        kv_memory=_bytes(args.kv_memory),
        threads=args.threads,
        metrics_port=args.metrics_port,
        lease_seconds=read.number("LLMASOS_LEASE_SECONDS", LEASE_SECONDS, 0.5, 600),
        stall_seconds=read.number("LLMASOS_STALL_SECONDS", 30.0, 1, 3600),
        nice=int(read.number("LLMASOS_NICE", 5, 0, 19)),
        log_level=level,
        echo_step_seconds=read.number("LLMASOS_ECHO_STEP_S", 0.0, 0, 60),
        echo_chunk=int(read.number("LLMASOS_ECHO_CHUNK", 512, 1, 1 << 20)),
        echo_poison=environment.get("LLMASOS_ECHO_POISON", "") == "1",
    )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def number(self, name: str, default: float, least: float, most: float) -> float:
        text = self._environment.get(name, "")
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise ConfigError(f"{name} is {text!r}. It may be a number from {least} to {most}.")
        return value


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.match(text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(
            f"--kv-memory is {text!r}. It may be a size like 800000000, 800MB or 2GB."
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])
