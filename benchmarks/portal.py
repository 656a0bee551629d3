"""The way through the portal against the engine alone, in turn, on the same cores.

    python -m benchmarks.portal --model DIR [--streams 32] [--tokens 128] [--rounds 3]

A whole ``manage.py up`` runs in a folder of its own; the client is this process, and counts. Tokens
per second are taken from the first request to the last token, prefill included, on both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import websockets

from benchmarks.process import Process
from tests.up import Up

PASSWORD = "correct horse battery staple"
EMAIL = "bench@example.org"
WORDS = ("river", "stone", "window", "paper", "garden", "winter", "engine", "letter", "silver")
SLOTS = 32


@dataclass(slots=True)
class PortalFigures:
    """Medians; tokens per second, and milliseconds to the first token."""

    streams: int
    tokens: int
    alone: float = 0.0
    websocket: float = 0.0
    sse: float = 0.0
    first_alone_ms: float = 0.0
    first_portal_ms: float = 0.0
    samples: dict[str, list[float]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        added = self.first_portal_ms - self.first_alone_ms
        what = f"{self.streams} streams"
        return [
            f"{what + ', engine alone':<36}{self.alone:>10.1f} tokens/s",
            *(
                f"{what + ', over ' + name:<36}{rate:>10.1f} tokens/s{rate / self.alone:>8.0%}"
                for name, rate in (("WebSocket", self.websocket), ("SSE", self.sse))
            ),
            f"{'first token, engine alone, p50':<36}{self.first_alone_ms:>10.1f} ms",
            f"{'first token, through the portal':<36}{self.first_portal_ms:>10.1f} ms"
            f"   {added:+.1f} ms",
        ]


class Client:
    """Somebody signed in, with a key too."""

    def __init__(self, up: Up, model: str) -> None:
        self.url, self.model = up.url, model
        up.manage("users", "add", EMAIL, "--password-stdin", given=PASSWORD)
        key = up.manage("keys", "create", "--user", EMAIL, "--name", "bench")
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=100)
        self.api = httpx2.AsyncClient(
            base_url=up.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=300,
            limits=limits,
        )
        self.page = httpx2.AsyncClient(
            base_url=up.url, headers={"Referer": up.url}, timeout=300, limits=limits
        )

    async def sign_in(self) -> None:
        page = await self.page.get("/accounts/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text[:500]
        form = {"csrfmiddlewaretoken": token[1], "login": EMAIL, "password": PASSWORD}
        answer = await self.page.post("/accounts/login/", data=form)
        assert answer.status_code == 302, answer.text[:500]
        csrf = next(v for n, v in self.page.cookies.items() if n.endswith("_csrf"))
        self.page.headers["X-CSRFToken"] = csrf

    async def sse(self, prompts: list[str], tokens: int) -> float:
        """Tokens per second of so many streams at once."""
        began = time.perf_counter()
        made = await asyncio.gather(*(self._one_sse(prompt, tokens) for prompt in prompts))
        return sum(made) / (time.perf_counter() - began)

    async def _one_sse(self, prompt: str, tokens: int) -> int:
        body = self._body(prompt, tokens) | {"stream_options": {"include_usage": True}}
        async with self.api.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            usage: dict[str, int] = {}
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line[6:])
                    usage = chunk.get("usage") or usage
        return usage["completion_tokens"]

    def _body(self, prompt: str, tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }

    async def first_token(self, prompt: str) -> float:
        """Seconds from sending the request to the first chunk with a token."""
        began, seen = time.perf_counter(), 0.0
        async with self.api.stream("POST", "/v1/completions", json=self._body(prompt, 4)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {") and not seen:
                    seen = time.perf_counter() - began
        return seen

    async def websocket(self, prompts: list[str], tokens: int) -> float:
        """The same over a socket each; what a page prepares before somebody sends is prepared."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.page.cookies.items())
        connect = [
            websockets.connect(
                f"ws{self.url.removeprefix('http')}/ws/jobs",
                additional_headers={"Cookie": cookie, "Origin": self.url},
            )
            for _ in prompts
        ]
        sockets = await asyncio.gather(*connect)
        made = await asyncio.gather(*(self._conversation() for _ in prompts))
        began = time.perf_counter()
        counts = await asyncio.gather(
            *(
                self._one_socket(socket, conversation, prompt, tokens)
                for socket, conversation, prompt in zip(sockets, made, prompts, strict=True)
            )
        )
        seconds = time.perf_counter() - began
        await asyncio.gather(*(socket.close() for socket in sockets))
        return sum(counts) / seconds

    async def _conversation(self) -> str:
        body = {"mode": "completion", "model": self.model}
        answer = await self.page.post("/playground/conversations", json=body)
        assert answer.status_code < 300, answer.text[:500]
        return str(answer.json()["id"])

    async def _one_socket(self, socket: Any, conversation: str, prompt: str, tokens: int) -> int:
        body = {
            "conversation": conversation,
            "text": prompt,
            "model": self.model,
            "mode": "completion",
            "settings": {"temperature": 0, "max_tokens": tokens},
        }
        answer = await self.page.post("/playground/jobs", json=body)
        assert answer.status_code < 300, answer.text[:500]
        job = answer.json()["job"]["id"]
        await socket.send(json.dumps({"type": "watch", "job": job, "after": 0}))
        async for text in socket:
            message = json.loads(text)
            if message["type"] != "entry":
                continue
            if message["seq"] % 32 == 0:
                ack = {"type": "ack", "job": job, "seq": message["seq"]}
                await socket.send(json.dumps(ack))
            event = message["event"]
            if event["type"] in ("finished", "failed", "cancelled"):
                assert event["type"] == "finished", event
                return int(event["usage"]["completion_tokens"])
        raise AssertionError("the socket was closed")


def measure(
    model: Path, *, streams: int = 32, tokens: int = 128, rounds: int = 3, firsts: int = 15
) -> PortalFigures:
    """Run everything, in turn, after one warm-up each."""
    figures = PortalFigures(streams, tokens)
    folder = Path(tempfile.mkdtemp(prefix="llm-bench-", dir="/tmp"))
    try:
        _copy(model, folder / "data" / "models" / model.name)
        cores = len(os.sched_getaffinity(0))
        settings = {"DEFAULT_MODEL": model.name, "OMP_NUM_THREADS": str(cores)}
        command = [sys.executable, "-m", "benchmarks.served", model, "--slots", SLOTS]
        with (
            Up(folder=folder, **settings) as up,
            Process("engine", command) as engine,
        ):
            up.wait_ready()
            client = Client(up, model.name)
            with asyncio.Runner() as runner:
                runner.run(client.sign_in())
                _alternate(figures, runner, client, engine, rounds, firsts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def _alternate(
    figures: PortalFigures,
    runner: asyncio.Runner,
    client: Client,
    engine: Process,
    rounds: int,
    firsts: int,
) -> None:
    tokens, rng = figures.tokens, random.Random(1)

    def prompts() -> list[str]:
        return [_prompt(rng) for _ in range(figures.streams)]

    sides: dict[str, Callable[[], float]] = {
        "alone": lambda: float(engine.ask("throughput", texts=prompts(), tokens=tokens)),
        "websocket": lambda: runner.run(client.websocket(prompts(), tokens)),
        "sse": lambda: runner.run(client.sse(prompts(), tokens)),
    }
    for number in range(rounds + 1):
        for name, side in sides.items():
            rate = side()
            if number:  # the first round warms up
                figures.samples.setdefault(name, []).append(rate)
    for _ in range(firsts + 1):
        seconds = float(engine.ask("first_token", text=_prompt(rng)))
        figures.samples.setdefault("first_alone_ms", []).append(seconds * 1000)
        seconds = runner.run(client.first_token(_prompt(rng)))
        figures.samples.setdefault("first_portal_ms", []).append(seconds * 1000)
    for name in ("first_alone_ms", "first_portal_ms"):
        del figures.samples[name][0]
    for name, samples in figures.samples.items():
        setattr(figures, name, statistics.median(samples))


def _prompt(rng: random.Random) -> str:
    """Of one length and never the same, so that no cache helps."""
    return "A list of words: " + ", ".join(rng.choice(WORDS) for _ in range(12)) + ","


def _copy(source: Path, target: Path) -> None:
    """Hard links where that can be done."""
    target.parent.mkdir(parents=True)
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    for name, default in (("streams", 32), ("tokens", 128), ("rounds", 3), ("firsts", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = vars(parser.parse_args())
    figures = measure(given.pop("model").resolve(), **given)
    print("\n".join(figures.lines()))
    print(json.dumps(asdict(figures)["samples"]))


if __name__ == "__main__":
    main()
