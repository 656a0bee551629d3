"""A stranger signs up, sends a prompt, and has the whole answer, whatever happens on the way."""

from __future__ import annotations

import os
import signal

from playwright.sync_api import expect

from tests.e2e.conftest import NewContext
from tests.e2e.playground import ENDED_MS, Playground, echoed
from tests.running import wait_for
from tests.up import Up

PROMPT = "alpha beta gamma delta "


def test_tokens_appear_while_they_are_made(play: Playground) -> None:
    play.settings(tokens=256)
    play.send(PROMPT)
    play.wait_for_characters(20)
    assert len(play.answer) < 256
    play.wait_ended()
    assert play.answer == echoed(PROMPT, 256)
    expect(play.turn.locator("[data-stat=tokens]")).to_contain_text("256")


def test_a_reload_in_mid_answer_shows_the_whole_answer(play: Playground) -> None:
    play.settings(tokens=512)
    play.send(PROMPT)
    play.wait_for_characters(60)
    play.page.reload()
    again = Playground(play.page)
    again.wait_for_characters(60)
    assert len(again.answer) < 512
    again.wait_ended()
    assert again.answer == echoed(PROMPT, 512)
    again.page.reload()
    again.wait_ended()
    assert again.answer == echoed(PROMPT, 512)


def test_the_answer_goes_on_when_its_worker_is_killed(up: Up, play: Playground) -> None:
    play.settings(tokens=512)
    play.send(PROMPT)
    play.wait_for_characters(60)
    worker = up.child("worker-echo")
    play.note("resuming on another one")
    os.kill(worker, signal.SIGKILL)
    play.wait_noted()
    assert wait_for(lambda: up.state["children"].get("worker-echo", worker) != worker, 20)
    play.wait_ended()
    assert play.answer == echoed(PROMPT, 512)


def test_the_answer_goes_on_when_the_portal_is_killed(up: Up, play: Playground) -> None:
    play.settings(tokens=1024)
    play.send(PROMPT)
    play.wait_for_characters(60)
    os.kill(up.child("portal"), signal.SIGKILL)
    connection = play.page.locator("#connection")
    expect(connection).to_contain_text("Connection lost", timeout=20_000)
    expect(connection).to_be_hidden(timeout=ENDED_MS)
    play.wait_ended()
    assert play.answer == echoed(PROMPT, 1024)


def test_stop_ends_it_and_keeps_what_was_written(play: Playground) -> None:
    play.settings(tokens=2048)
    play.send(PROMPT)
    play.wait_for_characters(40)
    play.page.keyboard.press("Escape")
    play.wait_ended()
    kept = play.answer
    assert 40 <= len(kept) < 2048
    assert echoed(PROMPT, 2048).startswith(kept)


def test_regenerating_gives_a_new_answer(play: Playground) -> None:
    play.settings(tokens=32)
    play.send(PROMPT)
    play.wait_ended()
    play.turn.locator("[data-regenerate]").click()
    expect(play.turn).to_have_attribute("aria-busy", "true")
    play.wait_ended()
    assert play.answer == echoed(PROMPT, 32)


def test_a_visitor_can_try_it_before_signing_up(up: Up, new_context: NewContext) -> None:
    page = new_context().new_page()
    page.goto(up.url)
    play = Playground(page)
    play.settings(tokens=32)
    play.send(PROMPT)
    play.wait_ended()
    assert play.answer == echoed(PROMPT, 32)


def test_another_person_cannot_open_the_conversation(
    up: Up, play: Playground, new_context: NewContext
) -> None:
    play.settings(tokens=16)
    play.send(PROMPT)
    play.wait_ended()
    other = new_context().new_page()
    answer = other.goto(play.page.url)
    assert answer is not None
    assert answer.status == 404
