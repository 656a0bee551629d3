"""S10: whatever is sent to whatever route the description names, no answer is of our making: no
5xx, and none takes a second. Requests are made from the description itself.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from portal.api import urls  # noqa: F401  (adds the routes)
from portal.api.description import described
from tests.running import MODEL, Running

SECONDS = 1.0
TRIES = 3


def allowed() -> float:
    """A second of a machine that has nothing else to do."""
    return SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


FEW = 4
AMOUNTS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "n")

schema = schemathesis.openapi.from_dict(described())
schema.config.phases.coverage.enabled = False  # hundreds for each route


@pytest.fixture(scope="module")
def key(running: Running) -> str:
    return running.make_key("anything@example.org")


def bounded(body: Any) -> Any:
    """The same body with little to generate, half the time for a model that is there."""
    if not isinstance(body, dict):
        return body
    small = {
        name: min(value, FEW) if name in AMOUNTS and type(value) is int else value
        for name, value in body.items()
    }
    if isinstance(body.get("model"), str) and len(repr(body)) % 2:
        small["model"] = MODEL
    if "sampling" in small:
        small["sampling"] = bounded(small["sampling"])
    if "encoding_format" in body or "dimensions" in body:
        return small  # an encoder generates nothing
    limit = "max_output_tokens" if "input" in body else "max_tokens"
    return {limit: FEW} | small if {"messages", "prompt", "input"} & set(body) else small


@schema.parametrize()
@settings(
    max_examples=10,
    phases=[Phase.generate],
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_request_gets_an_answer_of_ours(
    case: schemathesis.Case, running: Running, key: str
) -> None:
    case.body = bounded(case.body)
    for _ in range(TRIES):
        response = case.call(base_url=running.url, headers={"Authorization": f"Bearer {key}"})
        case.validate_response(response, checks=[not_a_server_error])
        assert response.status_code != 429, "the test itself asks too often"
        if response.elapsed < allowed():
            return
    pytest.fail(f"{response.elapsed:.2f} s at the fastest of {TRIES}")


def test_zz_nothing_was_logged_as_a_fault(running: Running) -> None:
    assert "Traceback" not in running.log("portal"), running.log("portal")[-4000:]
