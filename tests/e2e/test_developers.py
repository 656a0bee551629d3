"""The developers' page: from sign-in to a call that works, without leaving it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import NewContext, sign_up
from tests.up import Up


def call(page: Page, path: str) -> Locator:
    """Opens the route's form and sends the example in it."""
    details = page.locator("details.call", has=page.locator(f"summary code:text-is('{path}')"))
    details.first.locator("summary").click()
    details.first.get_by_role("button", name="Try it").click()
    return details.first


def test_a_key_is_made_fills_the_examples_and_calls(up: Up, new_context: NewContext) -> None:
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    sign_up(page, up.url)
    page.get_by_role("link", name="Developers").first.click()
    page.get_by_role("button", name="Make a key").click()
    secret = page.locator("#key").input_value()
    assert secret.startswith("llm_")
    expect(page.locator("#start-curl")).to_contain_text(secret)
    page.get_by_role("button", name="JavaScript").click()
    expect(page.locator("#start-javascript")).to_contain_text(secret)
    tried = call(page, "/v1/chat/completions")
    expect(tried.locator("[data-status]")).to_contain_text("status 200")
    expect(tried.locator("[data-answer]")).to_contain_text("[DONE]")
    read = call(page, "/api/v1/models")
    expect(read.locator("[data-answer]")).to_contain_text('"id": "echo"')
    # A key made by one click opens nothing that changes the team.
    refused = call(page, "/api/v1/teams")
    expect(refused.locator("[data-answer]")).to_contain_text("insufficient_scope")


def test_without_a_key_a_call_says_what_is_missing(up: Up, new_context: NewContext) -> None:
    page = new_context().new_page()
    page.goto(f"{up.url}/developers/")
    tried = call(page, "/v1/models")
    expect(tried.locator("[data-status]")).to_contain_text("status 401")
    expect(tried.locator("[data-answer]")).to_contain_text("invalid_api_key")
