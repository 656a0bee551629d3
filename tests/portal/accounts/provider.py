"""A sign-in provider of our own, on this machine, that says and does what a test wants."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt

CLIENT = "llmasos"


class Provider:
    """``person`` is who signs in; ``description`` overrides what it says of itself; ``redirects``
    maps a path to where it sends whoever asks; ``hits`` counts what was asked for."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {
            "sub": "42", "email": "ida@example.org", "email_verified": True, "name": "Ida Idp",
        }  # fmt: skip
        self.description: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.hits: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> dict[str, Any]:
        if path.startswith("/.well-known/"):
            names = ("authorization", "token", "userinfo")
            ends = {f"{name}_endpoint": f"{self.url}/{name}" for name in names}
            return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **ends, **self.description}
        if path == "/token":
            now = int(time.time())
            claims = self.person | {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 60}
            token = jwt.encode(claims, "x" * 32, algorithm="HS256")
            return {"access_token": "a", "token_type": "Bearer", "id_token": token}
        return self.person

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.hits.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target = provider.redirects.get(self.path)
                body = json.dumps(provider.answer(self.path)).encode()
                self.send_response(307 if target else 200)
                if target:
                    self.send_header("Location", target)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                pass

        return Handler
