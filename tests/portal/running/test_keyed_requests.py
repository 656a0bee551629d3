"""Requests with an API key go past what only pages need."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
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
