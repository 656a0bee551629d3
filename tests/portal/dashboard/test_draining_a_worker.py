"""The wall of a running system: an operator drains its worker."""

from __future__ import annotations

import httpx2

from tests.running import PASSWORD, Running, wait_for


def test_an_operator_drains_the_worker_and_the_wall_shows_it(running: Running) -> None:
    running.make_key("wall@example.org", operator=True)
    with httpx2.Client(base_url=running.url, timeout=30) as browser:
        browser.get("/accounts/login/")

        def token() -> str:
            return next(value for name, value in browser.cookies.items() if name.endswith("_csrf"))

        def states() -> list[str]:
            """Of the worker that is drained; others serve other models."""
            live = browser.get("/operations/live", headers={"Accept": "application/json"}).json()
            return [worker["state"] for worker in live["workers"] if worker["name"] == "w1"]

        form = {"login": "wall@example.org", "password": PASSWORD, "csrfmiddlewaretoken": token()}
        browser.post("/accounts/login/", data=form)
        assert browser.get("/operations/").status_code == 200
        assert states() == ["ready"]
        try:
            answer = browser.post(
                "/operations/drain", data={"worker": "w1", "csrfmiddlewaretoken": token()}
            )
            assert answer.status_code == 302
            assert wait_for(lambda: not states(), 15), states()
            running.processes["worker"].wait(15)
        finally:
            running.stop("worker")
            running.start("worker")
            running.wait_ready()
        assert wait_for(lambda: states() == ["ready"], 15)
