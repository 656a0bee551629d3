"""Two people make a team work: invite by link, join, switch, change a role, remove."""

from __future__ import annotations

from playwright.sync_api import Dialog, Page, expect

from tests.e2e.conftest import PASSWORD, NewContext, sign_up
from tests.e2e.playground import Playground, echoed
from tests.up import Up

PROMPT = "alpha beta gamma delta "


def accept(dialog: Dialog) -> None:
    dialog.accept()


def person(new_context: NewContext, url: str) -> tuple[Page, str]:
    page = new_context(viewport={"width": 1280, "height": 820}).new_page()
    page.on("dialog", accept)
    return page, sign_up(page, url)


def switch(page: Page, team: str) -> None:
    page.locator(".top summary").first.click()
    page.locator(".menu-list button", has_text=team).click()


def test_a_team_from_its_first_day_to_a_removal(up: Up, new_context: NewContext) -> None:
    lead, lead_email = person(new_context, up.url)
    lead.goto(f"{up.url}/teams/new")
    lead.fill("input[name=name]", "Night shift")
    lead.get_by_role("button", name="Make the team").click()
    expect(lead.locator("h1")).to_have_text("Members")
    lead.fill("input[name=email]", "nonsense")
    lead.evaluate("document.querySelector('input[name=email]').type = 'text'")
    lead.get_by_role("button", name="Invite").click()
    expect(lead.locator(".field-error")).to_have_text("This is not an e-mail address.")
    lead.fill("input[name=email]", "")
    lead.get_by_role("button", name="Invite").click()
    link = lead.locator(".snippet code").inner_text()

    mate, mate_email = person(new_context, up.url)
    mate.goto(link)
    expect(mate.locator("h1")).to_have_text("Join Night shift")
    mate.get_by_role("button", name="Join the team").click()
    expect(mate.locator(".rows")).to_contain_text(lead_email)
    mate.goto(link)
    expect(mate.locator("h1")).to_have_text("This invitation does not work")

    mate.goto(up.url)
    expect(mate.locator(".top summary").first).to_contain_text("Night shift")
    switch(mate, mate_email.partition("@")[0])
    expect(mate.locator(".top summary").first).not_to_contain_text("Night shift")
    switch(mate, "Night shift")
    expect(mate.locator(".top summary").first).to_contain_text("Night shift")

    lead.goto(f"{up.url}/teams/members")
    row = lead.locator(".rows li", has_text=mate_email)
    row.locator("select").select_option("admin")
    row.get_by_role("button", name="Change").click()
    expect(lead.locator(".note-good")).to_have_text(f"{mate_email} is admin now.")
    mate.goto(f"{up.url}/teams/log")
    expect(mate.locator("tbody tr").first).to_contain_text(mate_email)

    talk = Playground(_open(mate, up.url))
    talk.settings(tokens=4096)
    talk.send(PROMPT)
    talk.wait_for_characters(40)
    row.get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)
    mate.goto(f"{up.url}/teams/members")
    expect(mate.locator(".top summary").first).not_to_contain_text("Night shift")
    expect(mate.locator(".rows")).not_to_contain_text(lead_email)


def _open(page: Page, url: str) -> Page:
    page.goto(url)
    return page


def test_a_passkey_is_added_and_signs_in(up: Up, new_context: NewContext) -> None:
    url = up.url.replace("127.0.0.1", "localhost")
    page, _email = person(new_context, url)
    browser = page.context.new_cdp_session(page)
    browser.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    browser.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    page.goto(f"{url}/accounts/2fa/webauthn/add/")
    page.fill("input[name=password]", PASSWORD)
    page.get_by_role("button", name="Go on").click()
    page.fill("input[name=name]", "My laptop")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("h1")).to_have_text("Recovery codes")
    page.goto(f"{url}/accounts/2fa/webauthn/")
    expect(page.locator(".rows")).to_contain_text("My laptop")
    expect(page.locator(".rows")).to_contain_text("passkey")
    page.goto(f"{url}/accounts/logout/")
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{url}/accounts/login/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_selector("#play")
    page.goto(f"{url}/accounts/sessions/")
    expect(page.locator(".rows li")).to_have_count(1)


def test_an_answer_goes_to_the_team_that_one_acts_for(up: Up, new_context: NewContext) -> None:
    page, email = person(new_context, up.url)
    page.goto(f"{up.url}/teams/new")
    page.fill("input[name=name]", "Day shift")
    page.get_by_role("button", name="Make the team").click()
    play = Playground(_open(page, up.url))
    play.settings(tokens=16)
    play.send(PROMPT)
    play.wait_ended()
    assert play.answer == echoed(PROMPT, 16)
    expect(page.locator("#rail")).to_contain_text(PROMPT.strip())
    switch(page, email.partition("@")[0])
    expect(page.locator("#rail")).not_to_contain_text(PROMPT.strip())
