"""The built-in apps through the running system, as a visitor, a member and a stranger see them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from llmasos.tasks import tone
from tests.running import PASSWORD, Running, wait_for

REVIEW = {"text": "The kettle boils fast and looks lovely."}


class Browser:
    """A session with cookies and Django's CSRF token."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.http = httpx2.Client(base_url=running.url, timeout=30, follow_redirects=True)
        self.http.get("/gallery/translate")

    def token(self) -> str:
        return next(value for name, value in self.http.cookies.items() if name.endswith("_csrf"))

    def post(self, path: str, body: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"X-CSRFToken": self.token(), "Content-Type": "application/json"}
        return self.http.post(path, content=content, headers=headers)

    def sign_in(self, email: str) -> None:
        form = {"login": email, "password": PASSWORD, "csrfmiddlewaretoken": self.token()}
        assert self.http.post("/accounts/login/", data=form).status_code == 200
        self.http.get("/gallery/translate")

    def run(self, slug: str, inputs: dict[str, str]) -> dict[str, Any]:
        response = self.post(f"/gallery/{slug}/run", {"inputs": inputs})
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def result(self, started: dict[str, Any]) -> dict[str, Any]:
        """The run's result once it has ended."""
        results: list[dict[str, Any]] = []

        def ended() -> bool:
            results.append(self.http.get(started["run"]["url"]).json())
            return bool(results[-1]["state"] != "open")

        assert wait_for(ended, 20, every=0.1), results[-1]
        return results[-1]


@pytest.fixture
def visitor(running: Running) -> Iterator[Browser]:
    browser = Browser(running)
    yield browser
    browser.http.close()


def test_a_visitor_finds_the_built_in_apps(visitor: Browser) -> None:
    page = visitor.http.get("/gallery/").text
    for name in ("English ↔ Chinese", "Short summary", "Tone of a review"):
        assert name in page
    found = visitor.http.get("/gallery/?q=review&category=analysis&sort=name").text
    assert "Tone of a review" in found
    assert "Short summary" not in found
    chinese = visitor.http.get("/gallery/", headers={"Accept-Language": "zh-Hans"}).text
    assert "英汉互译" in chinese


@pytest.mark.parametrize("slug", ["translate", "short-summary", "review-tone"])
def test_an_apps_page_offers_its_form_and_examples(visitor: Browser, slug: str) -> None:
    page = visitor.http.get(f"/gallery/{slug}")
    assert page.status_code == 200
    data = re.search(r'<script id="app-data"[^>]*>(.*?)</script>', page.text, re.DOTALL)
    assert data is not None
    told = json.loads(data[1])
    assert told["run_url"] == f"/gallery/{slug}/run"
    assert len(told["examples"]) >= 2


def test_every_example_of_every_app_runs(visitor: Browser) -> None:
    from portal.gallery.builtin import BUILT_IN

    for app in BUILT_IN:
        for example in app.definition.examples:
            assert visitor.result(visitor.run(app.slug, example))["state"] == "finished"


def test_a_translation_is_a_job_whose_text_streams_over_the_socket(visitor: Browser) -> None:
    started = visitor.run("translate", {"text": "Hello there.", "direction": "en-zh"})
    assert started["kind"] == "text"
    (job,) = (job["id"] for job in started["jobs"])
    text, ended = "", False
    address = visitor.running.url.replace("http", "ws") + "/ws/jobs"
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.http.cookies.items())
    with connect(
        address, additional_headers={"Cookie": cookies, "Origin": visitor.running.url}
    ) as socket:
        socket.send(json.dumps({"type": "watch", "job": job, "after": 0}))
        while not ended:
            message = json.loads(socket.recv(timeout=10))
            if message["type"] == "entry":
                text += message["event"].get("text", "")
                ended = message["event"]["type"] == "finished"
    assert text
    result = visitor.result(started)
    assert (result["kind"], result["state"]) == ("text", "finished")
    assert text.strip().startswith(result["text"])


def test_the_tone_is_a_probability_for_each_label(visitor: Browser) -> None:
    started = visitor.run("review-tone", REVIEW)
    assert started["kind"] == "scores"
    assert {job["label"] for job in started["jobs"]} == {"positive", "negative", "mixed"}
    result = visitor.result(started)
    scores = result["scores"]
    assert {score["label"] for score in scores} == {"positive", "negative", "mixed"}
    assert sum(score["probability"] for score in scores) == pytest.approx(1)
    chances = [score["probability"] for score in scores]
    assert chances == sorted(chances, reverse=True)
    # the echo model gives each byte a logprob of -0.1, and all labels begin with a space
    asked = tone.question(REVIEW["text"])
    expected = tone.parse(asked, [-0.1 * len(label) for label in asked.labels])
    for score in scores:
        assert score["probability"] == pytest.approx(expected.probabilities[score["label"]])


def test_a_run_is_not_there_for_anybody_else(running: Running, visitor: Browser) -> None:
    started = visitor.run("review-tone", REVIEW)
    stranger = Browser(running)
    assert stranger.http.get(started["run"]["url"]).status_code == 404
    running.make_key("gallery-other@example.org")
    stranger.sign_in("gallery-other@example.org")
    assert stranger.http.get(started["run"]["url"]).status_code == 404


def test_a_members_run_is_his_teams(running: Running, visitor: Browser) -> None:
    running.make_key("gallery-member@example.org")
    visitor.sign_in("gallery-member@example.org")
    started = visitor.run("short-summary", {"text": "Rain fell. The river rose."})
    assert visitor.result(started)["state"] == "finished"
    assert Browser(running).http.get(started["run"]["url"]).status_code == 404


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"text": "x"}, "direction"),
        ({"text": "", "direction": "en-zh"}, "text"),
        ({"text": "x" * 1001, "direction": "en-zh"}, "text"),
        ({"text": "a\0b", "direction": "en-zh"}, "text"),
        ({"text": "x", "direction": "en-fr"}, "direction"),
        ({"text": 7, "direction": "en-zh"}, "text"),
        ({"text": "x", "direction": "en-zh", "colour": "red"}, "colour"),
        ([], "inputs"),
    ],
)
def test_a_wrong_input_is_named(visitor: Browser, inputs: Any, field: str) -> None:
    response = visitor.post("/gallery/translate/run", {"inputs": inputs})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_input", field)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"[" * 50_000])
def test_a_body_that_is_no_json_object_is_refused(visitor: Browser, body: bytes) -> None:
    response = visitor.post("/gallery/translate/run", body)
    assert response.status_code == 400
    assert response.json()["error"]["field"] == "inputs"


def test_a_run_needs_the_csrf_token(running: Running) -> None:
    response = httpx2.post(f"{running.url}/gallery/translate/run", json={"inputs": {}})
    assert response.status_code == 403


@pytest.mark.parametrize("path", ["/gallery/no-such-app", f"/gallery/runs/{'0' * 32}"])
def test_what_is_not_there_is_404(visitor: Browser, path: str) -> None:
    assert visitor.http.get(path).status_code == 404


def test_zz_nothing_was_logged_as_a_traceback(running: Running) -> None:
    assert "Traceback" not in running.log("portal"), running.log("portal")[-4000:]
