"""R8: readers who never read harm nobody: neither the portal's memory nor the others' streams."""

from __future__ import annotations

import asyncio
import json
import socket
import time

from tests.faults.report import Row
from tests.faults.system import System, at, key_of, new_job, request, ticket

SOCKETS = 50
OTHERS = 4
STEP = 0.05
ROUND_S = 40.0
"""The portal closes a WebSocket that answers no ping: after so long there are new ones."""
LONG = 8000
SMALLEST_BUFFER = 4096


def stalled_readers(*, seconds: float, seed: int, noise: float = 0.0) -> Row:
    """``seconds`` with fifty sockets, half of them WebSockets, half streams, that are never read.

    They follow jobs with so many alternatives to each token that a stream is megabytes long.
    ``noise`` is by how many seconds a busy machine's gaps may differ for other reasons.
    """
    with System(step=STEP, slots=OTHERS + 2) as system:
        return asyncio.run(stalled_readers_of(system, seconds=seconds, seed=seed, noise=noise))


async def stalled_readers_of(system: System, *, seconds: float, seed: int, noise: float) -> Row:
    row = Row("R8", f"{SOCKETS} sockets stalled for {seconds:g} s", seed)
    key = key_of(system, "slow")
    jobs = [await new_job(system, key, "it is read", max_tokens=LONG) for _ in range(OTHERS)]
    gaps: list[tuple[float, float]] = []
    others = [asyncio.create_task(_follow(system, key, job, gaps)) for job in jobs]
    stalled = [
        await new_job(system, key, "never read", max_tokens=LONG, logprobs=20) for _ in range(2)
    ]
    begin = time.monotonic()
    await asyncio.sleep(max(2.0, min(30.0, seconds / 4)))
    before, quiet = system.memory("portal"), time.monotonic()
    half, most = SOCKETS // 2, before
    streams = [await _stalled_stream(system, key, stalled[n % 2]) for n in range(half)]
    sockets: list[socket.socket] = []
    while (left := quiet + seconds - time.monotonic()) > 0:
        for each in sockets:
            each.close()
        sockets = [await _stalled_websocket(system, key, stalled[n % 2]) for n in range(half)]
        most = max(most, await _watch_memory(system, min(left, ROUND_S)))
    for task in others:
        row.check(not task.done(), "a stream that is read ended")
        task.cancel()
    for each in [*streams, *sockets]:
        each.close()
    _judge(row, gaps, begin, quiet, noise)
    grown = (most - before) / 2**20
    row.check(grown <= 50, f"the portal's memory grew by {grown:.0f} MiB")
    row.figures += f"; the portal's memory +{grown:.0f} MiB"
    return row


def _judge(
    row: Row, gaps: list[tuple[float, float]], begin: float, quiet: float, noise: float
) -> None:
    alone = at((gap for when, gap in gaps if begin + 1 < when <= quiet), 0.95)
    beside = at((gap for when, gap in gaps if when > quiet), 0.95)
    row.check(0 < beside <= 1.1 * alone + noise, f"gaps of {beside:.3f} s, {alone:.3f} s before")
    row.figures = f"gap p95 {1000 * beside:.1f} ms, {1000 * alone:.1f} ms before"


async def _watch_memory(system: System, seconds: float) -> int:
    """The most that the portal held."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, system.memory("portal"))
        await asyncio.sleep(0.25)
    return most


async def _follow(system: System, key: str, job: str, gaps: list[tuple[float, float]]) -> None:
    """Reads as fast as it can, and another job after that one's end; when each token came, and how
    long after the one before."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
        writer.write(request("GET", f"/api/v1/jobs/{job}/events", key))
        last = 0.0
        try:
            while line := await reader.readline():
                if line == b"event: delta\n":
                    now = time.monotonic()
                    if last:
                        gaps.append((now, now - last))
                    last = now
        finally:
            writer.close()
        job = await new_job(system, key, "it is read", max_tokens=LONG)


async def _stalled_stream(system: System, key: str, job: str) -> socket.socket:
    one = _socket(system)
    one.sendall(request("GET", f"/api/v1/jobs/{job}/events", key))
    return one


async def _stalled_websocket(system: System, key: str, job: str) -> socket.socket:
    """Follows the job, and acknowledges nothing."""
    opens = await ticket(system, key)
    one = _socket(system)
    one.sendall(
        f"GET /ws/jobs?ticket={opens} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = await asyncio.to_thread(one.recv, 1024)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    text = json.dumps({"type": "watch", "job": job}).encode()
    one.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)  # masked with zeros
    return one


def _socket(system: System) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALLEST_BUFFER)
    one.settimeout(10)
    one.connect(("127.0.0.1", system.port))
    return one
