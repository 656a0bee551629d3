"""Requests with an API key go past what only pages need."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import pytest
from django.middleware.common import CommonMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.module_loading import import_string

from portal.lean import FOR_PAGES, ByKey, KeyedHandler
from tests.running import Running


def test_a_request_with_a_key_passes_what_only_pages_need_and_is_as_safe(running: Running) -> None:
    key = running.make_key("lean@example.org")
    page = httpx2.get(f"{running.url}/v1/models")
    keyed = httpx2.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert (page.status_code, keyed.status_code) == (401, 200)
    for name in ("x-request-id", "x-content-type-options", "referrer-policy", "content-length"):
        assert name in keyed.headers
    assert "set-cookie" not in keyed.headers


def test_a_browsers_session_beside_the_key_changes_nothing(running: Running) -> None:
    key = running.make_key("lean@example.org")
    names = [cookie.name for cookie in httpx2.get(f"{running.url}/accounts/login/").cookies.jar]
    session = next(name for name in names if name.endswith("_csrf")).replace("_csrf", "_session")
    headers = {"Authorization": f"Bearer {key}", "Cookie": f"{session}=something"}
    assert httpx2.get(f"{running.url}/v1/models", headers=headers).status_code == 200


@pytest.mark.django_db
async def test_what_is_left_of_djangos_middleware_stays_in_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[tuple[type, int]] = []
    for kind in (SecurityMiddleware, CommonMiddleware):
        for half in ("process_request", "process_response"):
            monkeypatch.setattr(kind, half, _noting(kind, getattr(kind, half), ran))
    scope = {"type": "http", "method": "GET", "path": "/v1/none", "query_string": b"",
             "headers": [(b"host", b"localhost"), (b"authorization", b"x")]}  # fmt: skip
    sent: list[dict[str, Any]] = []

    bodies = [{"type": "http.request", "body": b""}]

    async def receive() -> dict[str, Any]:
        return bodies.pop() if bodies else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await KeyedHandler()(scope, receive, send)
    assert sent[0]["status"] == 404
    assert [kind for kind, _ in ran] == [
        SecurityMiddleware, CommonMiddleware, CommonMiddleware, SecurityMiddleware,
    ]  # fmt: skip
    assert {thread for _, thread in ran} == {threading.get_ident()}


def test_no_thread_is_asked_when_a_request_begins(running: Running) -> None:
    """Django's own listeners look for old connections, and there are none then. One that is added
    costs every request a change of thread: write it as a coroutine, or listen elsewhere."""
    listening = "from django.core.signals import request_started\nprint(request_started.receivers)"
    assert running.python(f"import portal.asgi\n{listening}") == "[]"


def _noting(kind: type, half: Any, ran: list[tuple[type, int]]) -> Any:
    def noted(self: Any, *given: Any) -> Any:
        ran.append((kind, threading.get_ident()))
        return half(self, *given)

    return noted


@pytest.mark.parametrize(
    ("path", "keyed", "chosen"),
    [
        ("/v1/models", True, "keyed"),
        ("/api/v1/jobs", True, "keyed"),
        ("/v1/models", False, "pages"),
        ("/teams/keys", True, "pages"),
        ("/v10/models", True, "pages"),
        ("/ai/v1/models", True, "pages"),
    ],
)
async def test_which_way_a_request_goes(path: str, keyed: bool, chosen: str) -> None:
    went: list[str] = []

    def way(name: str) -> Any:
        async def application(*_: Any) -> None:
            went.append(name)

        return application

    headers = [(b"authorization", b"Bearer x")] if keyed else [(b"cookie", b"x")]
    chooser = ByKey(way("pages"), way("keyed"), prefix="")
    await chooser({"type": "http", "path": path, "headers": headers}, None, None)
    assert went == [chosen]


def test_everything_that_is_left_out_exists_and_nothing_else_is() -> None:
    from django.conf import settings

    before = list(settings.MIDDLEWARE)
    KeyedHandler()
    assert before == settings.MIDDLEWARE
    assert set(before) >= FOR_PAGES
    for name in FOR_PAGES:
        import_string(name)
