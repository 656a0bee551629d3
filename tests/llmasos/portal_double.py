"""A small server that speaks the portal's ``/v1`` over real sockets and breaks when told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-right"
MODELS = [
    {"id": "gemma-3-270m", "kind": "base", "context_length": 32768, "parameters": 268_098_176},
    {"id": "helper", "kind": "instruct", "context_length": 4096, "parameters": None},
]


@dataclass
class Portal:
    """``mode`` chooses how a generating request goes; ``seen`` are the requests' bodies."""

    url: str = ""
    mode: str = "well"
    models: list[dict[str, Any]] = field(default_factory=lambda: list(MODELS))
    pieces: tuple[str, ...] = ("Hel", "lo ", "你好", "🙂")
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving() -> Iterator[Portal]:
    portal = Portal()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(portal))
    server.daemon_threads = True
    portal.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield portal
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(portal: Portal) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            if portal.mode == "not json":
                self._send(200, b"<html>hello</html>")
            elif self._allowed():
                self._json(200, {"object": "list", "data": portal.models})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            portal.seen.append((self.path, body))
            if not self._allowed():
                return
            if portal.mode == "busy":
                self._error(503, "The queue is full. Try again later.", "queue_full", "7")
            elif portal.mode == "limited":
                self._error(429, "Your team's budget is used up.", "over_budget", "60")
            elif portal.mode == "strange":
                self._send(502, b"bad gateway")
            elif portal.mode == "silent":
                time.sleep(5)
            elif body.get("echo"):
                self._json(200, {"choices": [_scored(i, p) for i, p in enumerate(body["prompt"])]})
            else:
                try:
                    self._stream("chat" in self.path)
                except OSError:  # whoever read it has hung up
                    portal.gone.set()

        def _allowed(self) -> bool:
            if self.headers.get("Authorization") in (None, f"Bearer {KEY}"):
                return True
            self._error(401, "The key is not valid. Make a new one.", "invalid_api_key", None)
            return False

        def _stream(self, chat: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.end_headers()
            self.wfile.write(b": queued, position 1\n\n")
            for number, piece in enumerate(portal.pieces):
                if portal.mode == "cut" and number == 2:
                    return
                if portal.mode == "broken" and number == 2:
                    self._frame(
                        {"error": {"message": "The worker was lost.", "code": "worker_lost"}}
                    )
                    return
                choice = {"delta": {"content": piece}} if chat else {"text": piece}
                self._frame({"choices": [{"index": 0, **choice, "finish_reason": None}]})
            while portal.mode == "endless":
                self._frame({"choices": [{"index": 0, "text": "x", "finish_reason": None}]})
                time.sleep(0.01)
            last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
            self._frame({"choices": [{"index": 0, **last, "finish_reason": "length"}]})
            self._frame({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
            self.wfile.write(b"data: [DONE]\n\n")

        def _frame(self, body: dict[str, Any]) -> None:
            data = json.dumps(body, ensure_ascii=False).encode()
            self.wfile.write(b"data: " + data + b"\n\n")
            self.wfile.flush()

        def _error(self, status: int, message: str, code: str, retry: str | None) -> None:
            body = {"error": {"message": message, "type": "x", "param": None, "code": code}}
            self._json(status, body, {"Retry-After": retry} if retry else {})

        def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(body).encode(), headers or {})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _scored(index: int, text: str) -> dict[str, Any]:
    """One token a word, each scored by its length."""
    words = text.split(" ")
    starts = [0]
    for word in words[:-1]:
        starts.append(starts[-1] + len(word) + (len(starts) > 1))
    logprobs = [None, *[-float(len(word)) for word in words[1:]]]
    return {
        "index": index,
        "text": text,
        "logprobs": {"tokens": words, "token_logprobs": logprobs, "text_offset": starts},
    }
