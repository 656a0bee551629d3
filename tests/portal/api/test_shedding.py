"""Who was refused a moment ago for a full queue is refused again at next to no cost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from portal.api.shedding import FORGET_S, HOLD_S, OPEN, Shedding, taken

FULL = (503, {"error": {"code": "queue_full", "message": "Too many wait."}})
DONE = (200, {"object": "text_completion"})


class Portal:
    """Answers what ``says`` is; counts what reached it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.says: tuple[int, dict[str, Any]] = FULL
        self.bodies: list[bytes] = []
        self.takes = False
        self.going = asyncio.Event()
        self.going.set()
        self.shedding = Shedding(self._answer, clock=lambda: self.now)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        if self.takes:
            taken(type("Request", (), {"scope": scope})())
        await self.going.wait()
        headers = [(b"retry-after", b"3"), (b"x-request-id", b"first")]
        await send({"type": "http.response.start", "status": self.says[0], "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(self.says[1]).encode()})

    async def ask(
        self, *, key: str = "a", path: str = "/v1/completions", model: str = "echo", text: str = "x"
    ) -> tuple[int, dict[bytes, bytes], Any]:
        body = json.dumps({"prompt": text, "model": model}).encode()
        parts = [body[:10], body[10:]]
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": path,
                 "headers": [(b"authorization", f"Bearer {key}".encode())]}  # fmt: skip
        await self.shedding(scope, receive, send)
        return said[0]["status"], dict(said[0]["headers"]), json.loads(said[1]["body"])

    async def reached(self, **asked: str) -> bool:
        before = len(self.bodies)
        await asyncio.wait_for(self.ask(**asked), 1)
        return len(self.bodies) > before

    async def stall(self) -> asyncio.Task[Any]:
        """A request that the portal has begun to look at."""
        before = len(self.bodies)
        self.going.clear()
        task = asyncio.create_task(self.ask())
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(self.bodies) == before + 1, "it was refused"
        return task

    async def go(self, *stalled: asyncio.Task[Any]) -> None:
        self.going.set()
        await asyncio.gather(*stalled)


@pytest.fixture
def portal() -> Portal:
    return Portal()


async def test_the_same_again_is_refused_alike_and_reaches_nobody(portal: Portal) -> None:
    await portal.ask()
    status, headers, body = await portal.ask(text="another prompt")
    assert (status, body) == FULL
    assert headers[b"retry-after"] == b"3"
    assert headers[b"x-request-id"] not in (b"", b"first")
    assert len(portal.bodies) == 1


async def test_another_key_model_or_route_goes_on(portal: Portal) -> None:
    await portal.ask()
    assert await portal.reached(key="b")
    assert await portal.reached(model="gemma-3-270m")
    assert await portal.reached(path="/v1/chat/completions")


async def test_after_a_while_one_goes_on_to_see_while_others_wait(portal: Portal) -> None:
    await portal.ask()
    portal.now = HOLD_S + 0.01
    seeing = await portal.stall()
    assert not await portal.reached()
    await portal.go(seeing)
    assert not await portal.reached(), "it was refused again"


async def test_the_more_are_taken_the_more_go_on_at_once(portal: Portal) -> None:
    await portal.ask()
    portal.now = HOLD_S + 0.01
    portal.says = DONE
    for room in range(1, OPEN):
        seeing = [await portal.stall() for _ in range(room)]
        assert not await portal.reached()
        for each in seeing[1:]:
            each.cancel()
        await asyncio.wait(seeing[1:] or [asyncio.create_task(asyncio.sleep(0))])
        await portal.go(seeing[0])
    crowd = [await portal.stall() for _ in range(40)]
    await portal.go(*crowd)


async def test_a_job_that_is_made_counts_before_its_answer_is_there(portal: Portal) -> None:
    await portal.ask()
    portal.now = HOLD_S + 0.01
    portal.says, portal.takes = DONE, True
    crowd = [await portal.stall() for _ in range(3)]
    await portal.go(*crowd)


async def test_whoever_never_comes_back_holds_nobody_up_for_long(portal: Portal) -> None:
    await portal.ask()
    portal.now = HOLD_S + 0.01
    lost = await portal.stall()
    assert not await portal.reached()
    portal.now = FORGET_S + 0.01
    other = await portal.stall()
    await portal.go(lost, other)


async def test_an_answer_to_an_earlier_request_does_not_open_the_door(portal: Portal) -> None:
    await portal.ask()
    portal.says = DONE
    assert await portal.reached(model="another")
    assert not await portal.reached()


async def test_other_refusals_are_not_remembered(portal: Portal) -> None:
    for says in ((429, {"error": {"code": "rate_limit_exceeded"}}), (503, {}), (503, FULL[1])):
        portal.says = says
        assert await portal.reached()
    portal.now = FORGET_S + 1
    assert await portal.reached()


async def test_what_is_asked_arrives_whole(portal: Portal) -> None:
    portal.says = DONE
    await portal.ask(text="好" * 100_000)
    assert json.loads(portal.bodies[0])["prompt"] == "好" * 100_000


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b"[" * 50_000, b'{"model": []}'])
async def test_any_body_is_passed_on(portal: Portal, body: bytes) -> None:
    await portal.ask()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await portal.shedding(scope, receive, send)
    assert portal.bodies[-1] == body
