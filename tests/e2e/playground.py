"""The playground as a person's eyes and hands see it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
ENDED_MS = 60_000


class Playground:
    def __init__(self, page: Page) -> None:
        self.page = page
        page.wait_for_selector("#play[data-ready]", state="attached")

    def settings(self, *, tokens: int, temperature: float = 0.0) -> None:
        self.page.locator("#s-temperature").fill(str(temperature))
        self.page.locator("#s-max_tokens").fill(str(LENGTHS.index(tokens)))

    def mode(self, name: str) -> None:
        self.page.locator(f"label:has(input[name=mode][value={name}])").click()

    def send(self, text: str) -> None:
        self.page.locator("#prompt").fill(text)
        self.page.locator("#prompt").press("Control+Enter")

    @property
    def turn(self) -> Locator:
        """The newest answer."""
        return self.page.locator("article.turn").last

    @property
    def answer(self) -> str:
        """What has been written of it."""
        made = self.turn.locator("[data-body] .made")
        return (made if made.count() else self.turn.locator("[data-body]")).inner_text()

    def wait_for_characters(self, count: int) -> None:
        """Until so much of the answer is there."""
        self.page.wait_for_function(
            """count => {
                const turns = document.querySelectorAll("article.turn");
                const body = turns.length && turns[turns.length - 1].querySelector("[data-body]");
                const made = body && (body.querySelector(".made") ?? body);
                return made && made.textContent.length >= count;
            }""",
            arg=count,
        )

    def note(self, text: str) -> None:
        """From now on, whether the newest answers' frames ever say so, however shortly."""
        self.page.evaluate(
            """text => {
                window.noted = false;
                const look = () => {
                    const turn = [...document.querySelectorAll("article.turn")].at(-1);
                    window.noted ||= turn?.textContent.includes(text) ?? false;
                };
                new MutationObserver(look).observe(
                    document.body, { subtree: true, childList: true, characterData: true });
            }""",
            text,
        )

    def wait_noted(self) -> None:
        self.page.wait_for_function("() => window.noted", timeout=ENDED_MS)

    def wait_ended(self) -> None:
        expect(self.turn.locator("[data-actions]")).to_be_visible(timeout=ENDED_MS)


def echoed(prompt: str, tokens: int) -> str:
    """What the echo model goes on with: the prompt's bytes, over and over."""
    data = prompt.encode()
    return (data * (tokens // len(data) + 1))[:tokens].decode(errors="ignore")
