"""The playground in Chinese, on a phone, in the dark, and without a mouse."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import NewContext, sign_up
from tests.e2e.playground import Playground, echoed
from tests.up import Up


def test_it_speaks_chinese_to_a_chinese_browser_and_can_be_switched(
    up: Up, new_context: NewContext
) -> None:
    page = new_context(locale="zh-CN").new_page()
    page.goto(up.url)
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    expect(page.locator("#send")).to_contain_text("续写")
    page.locator("header .wide-only button[name=language][value=en]").first.click()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_chinese_comes_back_whole_though_a_character_is_several_tokens(play: Playground) -> None:
    play.settings(tokens=256)
    prompt = "你好，世界🙂"
    play.send(prompt)
    play.wait_ended()
    assert echoed(prompt, 256).startswith(play.answer.rstrip("\ufffd"))
    assert len(play.answer) > 60


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_lies_beside_the_screen(
    up: Up, new_context: NewContext, width: int, scheme: str
) -> None:
    page = new_context(viewport={"width": width, "height": 760}, color_scheme=scheme).new_page()
    page.goto(up.url)
    assert _overflow(page) <= 0
    for path in ("/accounts/signup/", "/accounts/login/", "/gallery/", "/developers/"):
        page.goto(up.url + path)
        assert _overflow(page) <= 0, path


def _overflow(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return found


def test_a_phone_reaches_settings_and_sends(up: Up, new_context: NewContext) -> None:
    page = new_context(viewport={"width": 390, "height": 760}, has_touch=True).new_page()
    sign_up(page, up.url)
    page.locator("button[data-sheet=set]").click()
    expect(page.locator("#s-max_tokens")).to_be_in_viewport()
    page.locator("#s-max_tokens").fill("0")
    page.keyboard.press("Escape")
    expect(page.locator("#s-max_tokens")).not_to_be_in_viewport()
    page.locator("#prompt").fill("hello ")
    page.locator("#send").click()
    Playground(page).wait_ended()


def test_a_phone_shows_where_in_an_area_one_is(up: Up, new_context: NewContext) -> None:
    page = new_context(viewport={"width": 390, "height": 760}, has_touch=True).new_page()
    sign_up(page, up.url)
    for path in ("/accounts/data/", "/teams/settings"):
        page.goto(up.url + path)
        expect(page.locator(".side-links [aria-current]")).to_be_in_viewport(ratio=1)
        assert _overflow(page) <= 0


def test_a_name_without_a_space_stays_on_the_page(up: Up, new_context: NewContext) -> None:
    page = new_context(viewport={"width": 390, "height": 760}).new_page()
    sign_up(page, up.url)
    page.goto(up.url + "/teams/new")
    page.fill("main input[name=name]", "N" * 90)
    page.locator("main button[type=submit]").click()
    page.wait_for_url("**/teams/members")
    page.goto(up.url + "/teams/keys")
    page.fill("main input[name=name]", "K" * 90)
    page.locator("main button[type=submit]").click()
    expect(page.locator("#new-key")).to_be_visible()
    for path in ("members", "keys", "usage", "limits", "log", "settings", "all"):
        page.goto(f"{up.url}/teams/{path}")
        assert _overflow(page) <= 0, path


def test_the_keyboard_alone_is_enough(up: Up, play: Playground) -> None:
    page = play.page
    page.goto(up.url)
    play.settings(tokens=32)
    page.locator("body").press("Tab")
    for _ in range(40):
        if page.evaluate("document.activeElement && document.activeElement.id") == "prompt":
            break
        page.keyboard.press("Tab")
    else:
        pytest.fail("the prompt is not reached by Tab")
    page.keyboard.type("typed ")
    page.keyboard.press("Control+Enter")
    play.wait_ended()
    assert play.answer == echoed("typed ", 32)
