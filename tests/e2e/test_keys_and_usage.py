"""From a new key to its first call, and what that call looks like on the usage page."""

from __future__ import annotations

import re

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import NewContext, sign_up
from tests.running import wait_for
from tests.up import Up


def test_a_new_key_calls_and_its_use_is_drawn(up: Up, new_context: NewContext) -> None:
    page = new_context().new_page()
    sign_up(page, up.url)
    page.goto(up.url + "/teams/keys")
    page.locator("input[name=name]").fill("first")
    page.get_by_text("Rights and limits").click()
    page.locator("input[name=monthly_tokens]").fill("5000")
    page.get_by_role("button", name="Create key").click()
    key = page.locator(".snippet code").first.inner_text().strip()
    assert re.fullmatch(r"llm_\S{52}", key)
    assert page.locator(".snippet code", has_text=key).count() == 4
    body = {"model": "echo", "prompt": "hello", "max_tokens": 8}
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx2.post(f"{up.url}/v1/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text

    def shown() -> bool:
        page.goto(up.url + "/teams/usage")
        return page.locator("[data-chart=key_id]").count() == 1

    assert wait_for(shown, 15, every=0.5)
    expect(page.locator("[data-chart=days] canvas")).to_be_visible()
    page.locator("section", has=page.locator("#by-key_id")).get_by_text("As a table").click()
    expect(page.locator("section", has=page.locator("#by-key_id"))).to_contain_text("first (…")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_lies_beside_the_screen(up: Up, new_context: NewContext, width: int) -> None:
    page = new_context(viewport={"width": width, "height": 760}).new_page()
    sign_up(page, up.url)
    for path in ("/teams/keys", "/teams/usage", "/teams/limits"):
        page.goto(up.url + path)
        assert _overflow(page) <= 0, path
    page.goto(up.url + "/teams/keys")
    page.locator("input[name=name]").fill("x")
    page.get_by_role("button", name="Create key").click()
    assert _overflow(page) <= 0, "with a new key"


def _overflow(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return found
