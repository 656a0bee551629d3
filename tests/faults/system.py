"""A whole system to burden: Valkey, worker, tasks and portal; and a client that costs little."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_workers.queue import connect
from tests.running import MODEL, Running, _free_port


class System(Running):
    """``step`` is the echo model's, in seconds, ``slots`` the worker's; the portal has a stop-watch
    inside. A setting is given as its environment variable."""

    def __init__(self, *, step: float, slots: int = 32, **environment: str) -> None:
        super().__init__(step=step, **environment)
        self._slots = slots
        self._watch = self.folder / "stopwatch.jsonl"
        self.environment["STOPWATCH"] = str(self._watch)
        self.second_port = _free_port()

    def command(self, name: str) -> list[str]:
        """Also ``second``: another portal over the same data, at ``second_port``."""
        given = super().command("portal" if name == "second" else name)
        if name == "worker":
            return [*given, "--slots", str(self._slots)]
        other = {"portal.asgi:application": "tests.faults.inside:application"}
        if name == "second":
            other[str(self.port)] = str(self.second_port)
        return [other.get(part, part) for part in given]

    def inside(self, since: float) -> list[dict[str, float]]:
        """What the stop-watch wrote since a UNIX time."""
        lines = (json.loads(line) for line in self._watch.read_text().splitlines())
        return [line for line in lines if line["at"] >= since]

    def memory(self, name: str) -> int:
        """Resident bytes of one of the processes."""
        status = (Path("/proc") / str(self.processes[name].pid) / "status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def generated(self) -> int:
        """Tokens in the logs of all jobs that Redis knows."""
        client = connect(self.valkey.url)
        with client.pipeline(transaction=False) as pipe:
            for name in client.scan_iter("llmasos:job:*", count=1000):
                pipe.hget(name, "tokens")
            tokens = sum(int(tokens or 0) for tokens in pipe.execute())
        client.close()
        return tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """``seconds`` from before the connection is opened until the last byte."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


def key_of(system: Running, name: str, *terms: str) -> str:
    """A key of the user that is called so, with ``terms`` as an operator gives them."""
    email = f"{name}@example.org"
    full = system.make_key(email)
    if not terms:
        return full
    return system.manage("keys", "create", "--user", email, "--name", name, *terms)


async def post(system: Running, path: str, key: str, body: dict[str, Any]) -> Answer:
    """One request on a connection of its own. Raises ``OSError`` where there is no answer."""
    begin = time.perf_counter()
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    try:
        writer.write(request("POST", path, key, content))
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    seconds = time.perf_counter() - begin
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1.1 "):
        raise ConnectionError(f"no answer but {lines[0]!r}")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return Answer(int(lines[0].split()[1]), headers, rest, seconds)


async def complete(system: Running, key: str, prompt: str, max_tokens: int) -> Answer:
    """An answer of exactly so many tokens, in one piece."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}
    return await post(system, "/v1/completions", key, body)


async def new_job(system: Running, key: str, prompt: str, **sampling: object) -> str:
    """A job's id."""
    body = {"model": MODEL, "prompt": prompt, "sampling": {"ignore_eos": True} | sampling}
    answer = await post(system, "/api/v1/jobs", key, body)
    assert answer.status == 201, answer
    return str(json.loads(answer.body)["id"])


async def ticket(system: Running, key: str) -> str:
    """What opens one WebSocket."""
    answer = await post(system, "/api/v1/tickets", key, {})
    assert answer.status == 201, answer
    return str(json.loads(answer.body)["ticket"])


def request(method: str, path: str, key: str, content: bytes = b"", *more: str) -> bytes:
    """An HTTP request that closes its connection; ``more`` are header lines."""
    lines = [
        f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}",
        "Content-Type: application/json", f"Content-Length: {len(content)}", "Connection: close",
        *more,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + content


def is_well(port: int) -> bool:
    """Whether a portal answers there that can work."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def at(values: Iterable[float], part: float) -> float:
    """The value below which that part of them lies; 0 of none."""
    found = sorted(values)
    return found[int(part * (len(found) - 1))] if found else 0.0
