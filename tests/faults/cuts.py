"""R7: a stream that is cut anywhere goes on behind what was read, on any connection."""

from __future__ import annotations

import asyncio
import itertools
import json
import random

import websockets

from inference_workers.contract import TERMINAL_TYPES, Event, read_event
from tests.faults.report import Row
from tests.faults.system import System, is_well, key_of, new_job, request, ticket
from tests.running import wait_for

STEP = 0.01
READERS = 4
PROMPT = "好a🙂"
"""Most of its characters are several tokens: entries without text are among the cut ones."""
Entries = list[tuple[int, Event]]


def random_cuts(*, cuts: int, seed: int, portals: int = 2) -> Row:
    """Jobs read in pieces, by WebSocket and by server-sent events, while they are written and
    after; each piece ends at a random entry or byte, the next begins wherever chance says."""
    with System(step=STEP, slots=8, API_REQUESTS_PER_MINUTE="1000000") as system:
        if portals > 1:
            system.start("second")
            assert wait_for(lambda: is_well(system.second_port), 60), system.log("second")
        return asyncio.run(random_cuts_of(system, cuts=cuts, seed=seed, portals=portals))


async def random_cuts_of(
    system: System, *, cuts: int, seed: int, portals: int = 1, tokens: int = 150
) -> Row:
    row = Row("R7", f"{cuts} cuts, WebSocket and SSE, {portals} portals", seed)
    rng = random.Random(seed)
    key = key_of(system, "cut")
    ports = [system.port, system.second_port][:portals]
    left = itertools.count(cuts, -1)
    jobs = 0

    async def one_after_another() -> None:
        nonlocal jobs
        while next(left) > 0:
            jobs += 1
            job = await new_job(system, key, PROMPT, max_tokens=tokens, temperature=0.0)
            read: Entries = []
            while not _ended(read) and next(left) > 0:
                how = rng.choice([_by_socket, _by_events])
                read += await how(system, key, job, len(read), rng, rng.choice(ports))
            while not _ended(read):
                read += await _by_socket(system, key, job, len(read), None, ports[0])
            _judge(row, job, tokens, read, await _whole(system, key, job, ports[-1]))

    await asyncio.gather(*(one_after_another() for _ in range(READERS)))
    row.figures = f"{jobs} jobs of {tokens} tokens, every one whole"
    return row


def _judge(row: Row, job: str, tokens: int, read: Entries, whole: Entries) -> None:
    numbers = [seq for seq, _ in read]
    row.check(numbers == list(range(1, len(read) + 1)), f"{job}: numbers {numbers}")
    row.check(read == whole, f"{job}: prefix and suffix are not the whole")
    text = "".join(getattr(event, "text", "") for _, event in read)
    wanted = (PROMPT.encode() * tokens)[:tokens].decode(errors="replace")
    row.check(text == wanted, f"{job}: it says {text[:60]!r}…")


def _ended(read: Entries) -> bool:
    return bool(read) and read[-1][1].type in TERMINAL_TYPES


async def _by_socket(
    system: System, key: str, job: str, after: int, rng: random.Random | None, port: int
) -> Entries:
    """Up to some entries, then the connection is gone without a word; all without ``rng``."""
    url = f"ws://127.0.0.1:{port}/ws/jobs?ticket={await ticket(system, key)}"
    most = rng.randint(0, 16) if rng else 2**31
    found: Entries = []
    async with websockets.connect(url) as connection:
        await connection.send(json.dumps({"type": "watch", "job": job, "after": after}))
        while len(found) < most and not _ended(found):
            said = json.loads(await connection.recv())
            if said["type"] == "entry":
                found.append((said["seq"], read_event(json.dumps(said["event"]))))
                ack = {"type": "ack", "job": job, "seq": said["seq"]}
                await connection.send(json.dumps(ack))
        connection.transport.abort()
    return found


async def _by_events(
    system: System, key: str, job: str, after: int, rng: random.Random | None, port: int
) -> Entries:
    """Up to some byte, in the middle of an event if it falls there."""
    most = rng.randint(200, 4000) if rng else 2**31
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/api/v1/jobs/{job}/events"
    writer.write(request("GET", path, key, b"", f"Last-Event-ID: {after}"))
    text = b""
    while len(text) < most and (part := await reader.read(most - len(text))):
        text += part
    writer.transport.abort()
    return _events_in(text)


def _events_in(answer: bytes) -> Entries:
    """The whole events of a chunked answer that may break off anywhere."""
    body, rest = b"", answer.partition(b"\r\n\r\n")[2]
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        body, rest = body + rest[:count], rest[count + 2 :]
    found: Entries = []
    for block in body.split(b"\n\n")[:-1]:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"id" in fields:
            found.append((int(fields[b"id"]), read_event(fields[b"data"])))
    return found


async def _whole(system: System, key: str, job: str, port: int) -> Entries:
    return await _by_events(system, key, job, 0, None, port)
