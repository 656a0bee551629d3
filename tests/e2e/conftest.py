"""A real browser against a real ``manage.py up``; each test signs up as somebody new."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e import chromium
from tests.e2e.playground import Playground
from tests.up import Up

PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """Slow enough that there is a middle of an answer to do things in."""
    with Up(step=0.02) as system:
        system.wait_ready()
        yield system


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    assert path, chromium.REMEDY
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.QUIET)
        yield browser
        browser.close()


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(browser: Browser) -> Iterator[NewContext]:
    """A browser of its own for each person; complaints on its console fail the test."""
    made: list[BrowserContext] = []
    complaints: list[str] = []

    def make(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"locale": "en-GB", **options})
        context.set_default_timeout(20_000)
        context.on("console", lambda message: _note(complaints, message.type, message.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
    assert not complaints, complaints


def _note(complaints: list[str], kind: str, text: str) -> None:
    if kind == "error" and "status of 4" not in text and "WebSocket" not in text:
        complaints.append(text)


def sign_up(page: Page, url: str) -> str:
    """A new account, signed in; its address."""
    email = f"person{next(_numbers)}@example.org"
    page.goto(f"{url}/accounts/signup/")
    page.fill("input[name=email]", email)
    page.fill("input[name=password1]", PASSWORD)
    page.click("main form button[type=submit], form[action*=signup] button[type=submit]")
    page.wait_for_selector("#play[data-ready]", state="attached")  # what is clicked now is heard
    return email


@pytest.fixture
def play(up: Up, new_context: NewContext) -> Playground:
    """Somebody who has signed up and looks at the playground."""
    page = new_context(viewport={"width": 1280, "height": 820}).new_page()
    sign_up(page, up.url)
    return Playground(page)
