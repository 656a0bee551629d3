"""What the portal says about itself, to whom, and what it says when something is missing."""

from __future__ import annotations

import json
import signal

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import AsyncClient, Client
from pytest_django import Settings
from redis import Redis

from inference_workers.queue.clients import connect
from inference_workers.queue.leases import Leases, WorkerInfo
from portal import logs
from portal.accounts.models import User
from tests.environment import Valkey

LOCAL = {"HTTP_HOST": "localhost:8000"}


async def ready(client: AsyncClient) -> tuple[int, dict[str, str]]:
    answer = await client.get("/readyz")
    return answer.status_code, json.loads(answer.content)["checks"]


def register(valkey: Valkey, state: str, model: str = "gemma-3-270m") -> None:
    with connect(valkey.url) as client:
        leases = Leases(client)
        leases.register("w1", model=model, slots=4)
        leases.renew("w1", WorkerInfo(name="w1", model=model, slots=4, state=state))  # type: ignore[arg-type]


async def test_alive_needs_neither_database_nor_redis(async_client: AsyncClient) -> None:
    """No database is allowed in this test, so a query would be an error."""
    assert (await async_client.get("/healthz")).status_code == 200


@pytest.mark.django_db(transaction=True)
class TestReady:
    async def test_it_is_ready_with_a_worker_for_the_default_model(
        self, async_client: AsyncClient, valkey: Valkey, redis: Redis
    ) -> None:
        register(valkey, "ready")
        status, checks = await ready(async_client)
        assert status == 200
        assert {"database", "redis", "worker"} <= set(checks)
        assert set(checks.values()) == {"ok"}

    @pytest.mark.parametrize(
        ("state", "model", "said"),
        [
            ("loading", "gemma-3-270m", "gemma-3-270m is loading"),
            ("ready", "echo", "no worker serves gemma-3-270m"),
        ],
    )
    async def test_another_worker_is_not_enough(
        self,
        async_client: AsyncClient,
        valkey: Valkey,
        redis: Redis,
        state: str,
        model: str,
        said: str,
    ) -> None:
        register(valkey, state, model)
        status, checks = await ready(async_client)
        assert (status, checks["worker"]) == (503, said)

    async def test_without_redis_it_says_so_and_nothing_more(
        self, async_client: AsyncClient, valkey: Valkey
    ) -> None:
        valkey.stop(signal.SIGKILL)
        try:
            status, checks = await ready(async_client)
        finally:
            valkey.start()
        assert status == 503
        said = (checks["database"], checks["redis"], checks["worker"])
        assert said == ("ok", "not reachable", "not reachable")

    async def test_without_a_database_it_is_not_ready(
        self, async_client: AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(self: object) -> None:
            raise OSError("/secret/place is gone")

        monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", gone)
        status, checks = await ready(async_client)
        assert (status, checks["database"]) == (503, "not reachable")


class TestMetrics:
    def test_this_machine_and_operators_may_read_them(self, client: Client, operator: User) -> None:
        assert b"llmasos_http_requests_total" in client.get("/metrics", **LOCAL).content
        far = {"REMOTE_ADDR": "192.0.2.1"}
        assert client.get("/metrics", **far).status_code == 404
        client.force_login(operator, "django.contrib.auth.backends.ModelBackend")
        assert client.get("/metrics", **far).status_code == 200

    def test_a_signed_in_stranger_may_not(self, client: Client, outsider: User) -> None:
        client.force_login(outsider, "django.contrib.auth.backends.ModelBackend")
        assert client.get("/metrics", REMOTE_ADDR="192.0.2.1").status_code == 404

    def test_strangers_do_not_choose_label_values(self, client: Client, db: None) -> None:
        client.get("/no/such/page/made-up-by-me")
        client.generic("BREW", "/healthz")
        page = client.get("/metrics", **LOCAL).content.decode()
        assert "made-up-by-me" not in page
        assert "BREW" not in page
        assert 'route="healthz"' in page


class TestLogs:
    def test_every_answer_carries_its_requests_id(self, client: Client) -> None:
        first, second = (client.get("/healthz").headers["X-Request-Id"] for _ in range(2))
        assert len(first) == 32
        assert first != second

    def test_a_proxys_id_is_kept_and_a_strangers_is_not(
        self, client: Client, settings: Settings
    ) -> None:
        given = {"HTTP_X_REQUEST_ID": "edge-12345678"}
        assert client.get("/healthz", **given).headers["X-Request-Id"] != "edge-12345678"
        settings.LLMASOS = settings.LLMASOS.model_copy(update={"trusted_proxies": 1})
        assert client.get("/healthz", **given).headers["X-Request-Id"] == "edge-12345678"
        odd = {"HTTP_X_REQUEST_ID": "a b\x1b[31m"}
        assert client.get("/healthz", **odd).headers["X-Request-Id"] != "a b\x1b[31m"

    def test_secrets_in_paths_and_queries_are_not_logged(
        self, client: Client, db: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO"):
            client.get("/operator/very-secret-token")
            client.get("/accounts/password/reset/key/1-very-secret-token/")
            client.get("/models/?ticket=very-secret-token")
        assert "request_finished" in caplog.text
        assert "very-secret-token" not in caplog.text

    @pytest.mark.parametrize("as_json", [True, False])
    def test_both_renderings_can_be_built(self, as_json: bool) -> None:
        described = logs.describe(level="INFO", as_json=as_json)
        assert described["formatters"]["structured"]["processors"]
