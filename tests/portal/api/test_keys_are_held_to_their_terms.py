"""What a key may not do is refused on every route, in one place; what it has left is told truly."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from django.db import connection
from django.test import Client
from redis import Redis

from portal.accounts.models import User
from portal.api.dialect import api
from portal.api.scopes import SCOPES, first_part
from portal.catalogue.models import CatalogueModel
from portal.jobs.models import Job
from portal.teams.keys import Terms, create_key
from portal.teams.models import ApiKey, Team
from portal.usage.acting import acting
from portal.usage.models import NO_KEY, Reservation, UsageMonth
from tests.running import Running, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis")]


def caller(team: Team, user: User, **terms: Any) -> Client:
    plaintext = create_key(team=team, user=user, name="test", terms=Terms(**terms))[1]
    return Client(headers={"Authorization": f"Bearer {plaintext}"})


def complete(client: Client, **fields: Any) -> Any:
    body = {"model": "echo", "prompt": "Hello", "max_tokens": 4, "stream": True} | fields
    return client.post("/v1/completions", body, content_type="application/json")


def refused(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.content
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def test_every_route_has_a_scope() -> None:
    for prefix, router in api._routers:
        for path in router.path_operations:
            route = f"{prefix}/{path}"
            assert first_part(route) in SCOPES, f"{route} needs an entry in portal/api/scopes.py"


def test_a_key_without_the_scope_is_refused_with_the_reason(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    lister = caller(team, member, scopes=["models"])
    assert lister.get("/v1/models").status_code == 200
    assert "'chat'" in refused(complete(lister), 403, "insufficient_scope")
    talker = caller(team, member, scopes=["chat"])
    refused(talker.get("/v1/models"), 403, "insufficient_scope")
    assert complete(talker).status_code == 200
    assert Job.objects.count() == 1


def test_a_key_for_other_models_is_refused_with_the_reason(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    client = caller(team, member, allowed_models=["gemma-3-270m"])
    response = complete(client)
    assert "gemma-3-270m" in refused(response, 403, "model_not_allowed")
    assert response.json()["error"]["type"] == "permission_error"
    assert response.json()["error"]["param"] == "model"
    assert client.get("/v1/models").json()["data"] == []
    assert complete(caller(team, member, allowed_models=["echo"])).status_code == 200


def test_a_keys_budget_ends_its_spending_and_not_the_teams(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    client = caller(team, member, monthly_tokens=15)  # "Hello" and 4 are 9
    assert complete(client).status_code == 200
    response = complete(client)
    assert "API key" in refused(response, 429, "insufficient_quota")
    assert int(response.headers["Retry-After"]) >= 1
    assert complete(caller(team, member)).status_code == 200


def test_two_hundred_at_once_never_pass_a_keys_budget(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    client = caller(team, member, monthly_tokens=9 * 7 + 8)

    def one(_: int) -> int:
        try:
            status: int = complete(client).status_code
            return status
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(one, range(200)))
    assert statuses.count(200) == 7
    assert statuses.count(429) == 193
    key = ApiKey.objects.get()
    month = UsageMonth.objects.get(key_id=key.pk)
    assert month.spent + month.reserved == 9 * 7
    assert UsageMonth.objects.get(key_id=NO_KEY).reserved == 9 * 7


def test_tokens_a_minute_are_counted_by_the_worst_case_and_told(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    client = caller(team, member, tokens_per_minute=20)
    first = complete(client)
    assert first.headers["x-ratelimit-limit-tokens"] == "20"
    assert first.headers["x-ratelimit-remaining-tokens"] == "11"
    assert client.get("/v1/models").headers["x-ratelimit-remaining-tokens"] in ("11", "12")
    complete(client)
    third = complete(client)
    refused(third, 429, "rate_limit_exceeded")
    assert 1 <= int(third.headers["Retry-After"]) <= 60
    assert int(third.headers["x-ratelimit-remaining-tokens"]) < 9
    assert Job.objects.count() == 2
    hopeless = complete(client, max_tokens=500)
    assert "505" in refused(hopeless, 429, "rate_limit_exceeded")


def test_requests_a_minute_are_the_keys_own_and_told_on_every_answer(
    team: Team, member: User, echo: CatalogueModel, redis: Redis
) -> None:
    client = caller(team, member, requests_per_minute=4)
    answers = [client.get(path) for path in ("/v1/models", "/v1/models/nothing")]
    answers.append(complete(client, max_tokens=-1))
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["3", "2", "1"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"4"}
    client.get("/v1/models")
    fifth = client.get("/v1/models")
    refused(fifth, 429, "rate_limit_exceeded")
    assert fifth.headers["x-ratelimit-remaining-requests"] == "0"
    reset = float(fifth.headers["x-ratelimit-reset-requests"].removesuffix("s"))
    assert 55 < reset <= 60
    assert 1 <= int(fifth.headers["Retry-After"]) <= 15


def test_two_hundred_at_once_never_pass_a_keys_rate(team: Team, member: User) -> None:
    client = caller(team, member, requests_per_minute=9)

    def one(_: int) -> tuple[int, int]:
        try:
            answer = client.get("/v1/models")
            return answer.status_code, int(answer.headers["x-ratelimit-remaining-requests"])
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(200)))
    granted = [left for status, left in answers if status == 200]
    assert len(granted) <= 9 + 1, "one more may have come back in the meantime"
    assert sorted(set(granted))[-1] == 8
    assert all(left == 0 for status, left in answers if status == 429)


def test_an_expired_key_is_told_so(team: Team, member: User) -> None:
    client = caller(team, member)
    ApiKey.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert "expired" in refused(client.get("/v1/models"), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "value",
    [
        "", "Bearer", "Bearer ", "bearer\tx", "Basic dXNlcjpwYXNz", "Bearer llm_", "llm_abc",
        "Bearer " + "A" * 20_000, "Bearer llm_12345678_" + "é" * 43, "Bearer \x00", "Bearer a b",
        "Bearer llm_12345678_" + "A" * 43, "Bearer llm_12345678_" + "A" * 43 + "\n",
    ],
)  # fmt: skip
def test_an_odd_header_is_a_401_and_nothing_else(value: str) -> None:
    response = Client(headers={"Authorization": value}).get("/v1/models")
    refused(response, 401, "invalid_api_key")
    if len(value) > 30:
        assert value[-30:].strip() not in response.content.decode(), "a secret is not repeated"


def test_nobody_acts_for_a_key_after_its_request(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    complete(caller(team, member))
    assert acting() is None


def test_a_job_counts_for_its_key_and_its_member(
    team: Team, member: User, echo: CatalogueModel
) -> None:
    complete(caller(team, member))
    held = Reservation.objects.get()
    assert (held.key_id, held.member_id) == (ApiKey.objects.get().pk, member.pk)


REVOKE = """
import time
from portal.teams.keys import KEY_PATTERN, revoke_key
from portal.teams.models import ApiKey
revoke_key(key=ApiKey.objects.get(prefix={prefix!r}))
print(time.time())
"""


def test_revoking_a_key_ends_its_stream_and_its_work_within_a_second(running: Running) -> None:
    plaintext = running.make_key("revoked@example.org")
    headers = {"Authorization": f"Bearer {plaintext}"}
    body = {"model": "echo", "prompt": "x" * 100, "max_tokens": 3000, "stream": True,
            "ignore_eos": True}  # fmt: skip
    with (
        ThreadPoolExecutor(1) as pool,
        httpx2.Client(base_url=running.url, headers=headers, timeout=30) as client,
        client.stream("POST", "/v1/completions", json=body) as stream,
    ):
        assert stream.status_code == 200
        lines = (line for line in stream.iter_lines() if line.startswith("data:"))
        next(lines)
        revoked = pool.submit(running.python, REVOKE.format(prefix=plaintext[4:12]))
        last = ""
        for line in lines:
            last = line
        ended = time.time()
        assert ended - float(revoked.result()) < 1.0
        assert '"invalid_api_key"' in last
        assert client.get("/v1/models").status_code == 401
    state = "from portal.jobs.models import Job; print(Job.objects.latest('queued_at').state)"
    assert wait_for(lambda: running.python(state) == "cancelled", 10)
