"""The wall of a running system: an operator drains its worker."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.running import PASSWORD, Running, wait_for


def test_an_operator_drains_the_worker_and_the_wall_shows_it(running: Running) -> None:
    running.make_key("wall@example.org", operator=True)
    with httpx2.Client(base_url=running.url, timeout=30) as browser:
        browser.get("/accounts/login/")

        def token() -> str:
            return next(value for name, value in browser.cookies.items() if name.endswith("_csrf"))

        def live() -> Any:
            return browser.get("/operations/live", headers={"Accept": "application/json"}).json()

        form = {"login": "wall@example.org", "password": PASSWORD, "csrfmiddlewaretoken": token()}
        browser.post("/accounts/login/", data=form)
        assert browser.get("/operations/").status_code == 200
        (worker,) = live()["workers"]
        assert (worker["name"], worker["state"]) == ("w1", "ready")
        try:
            answer = browser.post(
                "/operations/drain", data={"worker": "w1", "csrfmiddlewaretoken": token()}
            )
            assert answer.status_code == 302
            assert wait_for(lambda: not live()["workers"], 15), live()["workers"]
            running.processes["worker"].wait(15)
        finally:
            running.stop("worker")
            running.start("worker")
            running.wait_ready()
        assert wait_for(lambda: [w["state"] for w in live()["workers"]] == ["ready"], 15)
