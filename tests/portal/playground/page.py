"""What the page does, without a browser: a session with its cookies, JSON endpoints, the socket."""

from __future__ import annotations

import json
import uuid
from types import TracebackType
from typing import Any, Self

import httpx2
import websockets
from websockets.asyncio.client import ClientConnection

from tests.running import PASSWORD

ENDS = ("finished", "failed", "cancelled")


class Page:
    """A visitor, or after ``sign_in`` a user, at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.AsyncClient(base_url=url, timeout=30, follow_redirects=False)

    async def __aenter__(self) -> Self:
        (await self.http.get("/playground/conversations")).raise_for_status()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def sign_in(self, email: str, password: str = PASSWORD) -> Self:
        form = {"login": email, "password": password, "csrfmiddlewaretoken": self._token()}
        answer = await self.http.post("/accounts/login/", data=form, headers={"Referer": self.url})
        assert answer.status_code == 302, answer.text
        return self

    async def sign_out(self) -> None:
        form = {"csrfmiddlewaretoken": self._token()}
        answer = await self.http.post("/accounts/logout/", data=form, headers={"Referer": self.url})
        assert answer.status_code == 302, answer.text

    def _token(self) -> str:
        return next(v for k, v in self.http.cookies.items() if k.endswith(("csrf", "csrftoken")))

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        headers = {"X-CSRFToken": self._token(), "Origin": self.url}
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        return await self.http.request(
            method, f"/playground/{path}", content=content, headers=headers, **more
        )

    async def begin(self, mode: str = "completion") -> str:
        answer = await self.call("POST", "conversations", {"mode": mode, "model": "echo"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def ask(
        self, conversation: str, text: str = "hello", *, mode: str = "completion", **more: Any
    ) -> dict[str, Any]:
        answer = await self.try_ask(conversation, text, mode=mode, **more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def try_ask(
        self,
        conversation: str,
        text: str | None = "hello",
        *,
        mode: str = "completion",
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> httpx2.Response:
        body = {
            "conversation": conversation,
            "model": "echo",
            "mode": mode,
            "settings": {"max_tokens": 16, "temperature": 0} | (settings or {}),
            "client_key": str(uuid.uuid4()),
            **({} if text is None else {"text": text}),
            **more,
        }
        return await self.call("POST", "jobs", body)

    def socket(self, *, origin: str | None = "same") -> websockets.connect:
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        return websockets.connect(
            self.url.replace("http", "ws") + "/ws/jobs",
            origin=self.url if origin == "same" else origin,  # type: ignore[arg-type]
            additional_headers={"Cookie": cookies},
            max_size=2**24,
            max_queue=None,  # read on while closing, as a browser does
        )


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(await socket.recv()))


async def follow(socket: ClientConnection, job: str, after: int = 0) -> list[dict[str, Any]]:
    """Watch a job to its end, acknowledging; its entries."""
    await say(socket, type="watch", job=job, after=after)
    entries: list[dict[str, Any]] = []
    while not entries or entries[-1]["event"]["type"] not in ENDS:
        message = await hear(socket)
        assert message["type"] != "error", message
        if message["type"] == "entry":
            entries.append(message)
            await say(socket, type="ack", job=job, seq=message["seq"])
    return entries


def text_of(entries: list[dict[str, Any]]) -> str:
    return "".join(e["event"].get("text", "") for e in entries)
