"""The operators' wall, over a real Valkey."""

from __future__ import annotations

import re
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.test import Client
from redis import Redis

from inference_workers.contract import Job, Sampling
from inference_workers.queue.clients import connect
from inference_workers.queue.leases import Leases, WorkerInfo
from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.dashboard import selectors
from portal.jobs import links


@pytest.fixture(autouse=True)
def _fresh(redis: Redis) -> None:
    selectors.now.clear()
    selectors.rows.clear()


@pytest.fixture
def leases(redis: Redis) -> Leases:
    return links.leases()


@pytest.fixture
def model(db: None) -> CatalogueModel:
    return CatalogueModel.objects.create(
        id="echo", name="Echo", family="echo", licence="none", kind="base", source="echo",
        digest="sha256:0", state="ready",
    )  # fmt: skip


def register(leases: Leases, name: str, **info: Any) -> None:
    told = WorkerInfo(name=name, model="echo", state="ready", slots=8, **info)
    leases.register(name, model="echo", slots=8, info=told)


def job(number: int) -> Job:
    return Job(
        id=f"{number:032x}", team="t", source="api", model="echo", model_digest="sha256:0",
        input_ids=(1, 2), sampling=Sampling(), seed=1,
    )  # fmt: skip


def live(client: Client) -> dict[str, Any]:
    response = client.get("/operations/live", headers={"Accept": "application/json"})
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("path", ["/operations/", "/operations/live"])
def test_the_wall_is_not_there_for_others(client: Client, outsider: User, path: str) -> None:
    assert client.get(path).status_code == 404
    client.force_login(outsider)
    assert client.get(path).status_code == 404


def test_others_cannot_drain(client: Client, outsider: User, leases: Leases) -> None:
    register(leases, "harbour")
    client.force_login(outsider)
    assert client.post("/operations/drain", {"worker": "harbour"}).status_code == 404
    assert leases.renew("harbour", leases.workers()[0]).drain is False


def test_it_shows_queues_and_workers(
    client: Client, operator: User, leases: Leases, model: CatalogueModel
) -> None:
    register(leases, "harbour", running=3, tokens_per_second=41.5)
    queue = links.queue()
    for number in (1, 2):
        queue.enqueue(job(number))
    client.force_login(operator)
    found = live(client)
    assert (found["waiting"], found["running"], found["slots"]) == (2, 3, 8)
    assert found["tokens_per_second"] == 41.5
    assert 0 <= found["longest_wait"] < 60
    assert found["models"][0]["id"] == "echo"
    assert found["workers"][0]["name"] == "harbour"
    page = client.get("/operations/")
    assert page.status_code == 200
    assert "harbour" in page.content.decode()


def test_an_encoder_is_not_said_to_generate_no_tokens(
    client: Client, operator: User, leases: Leases, model: CatalogueModel
) -> None:
    """It generates none ever: there is nothing to tell."""
    register(leases, "harbour", tokens_per_second=0.0)
    client.force_login(operator)
    assert "<td>0</td>" in _row(client)
    CatalogueModel.objects.update(kind="embedding")
    selectors.now.clear()
    row = _row(client)
    assert "<td>0</td>" not in row
    assert row.count("<td>\u2013</td>") == 2, "nor a part of prefixes found"


def _row(client: Client) -> str:
    """Of the one worker, without spaces between and in its cells."""
    page = client.get("/operations/").content.decode()
    row = page[page.index("harbour") :].partition("</tr>")[0]
    return re.sub(r"\s*(</?td>)\s*", r"\1", row)


def test_an_operator_drains_a_worker_and_it_is_audited(
    client: Client, operator: User, leases: Leases, model: CatalogueModel
) -> None:
    register(leases, "harbour")
    client.force_login(operator)
    response = client.post("/operations/drain", {"worker": "harbour"}, headers={"HX-Request": "1"})
    assert response.status_code == 200
    assert leases.renew("harbour", leases.workers()[0]).drain is True
    entry = LogEntry.objects.get(actor=operator)
    assert entry.object_pk == "echo"
    assert "worker harbour" in (entry.changes or {})


def test_draining_a_worker_that_is_gone_says_so(client: Client, operator: User) -> None:
    client.force_login(operator)
    response = client.post("/operations/drain", {"worker": "nobody"}, headers={"HX-Request": "1"})
    assert "no worker of that name" in response.content.decode()
    assert not LogEntry.objects.filter(actor=operator).exists()


def test_ten_open_walls_cost_one_read(
    client: Client, operator: User, monkeypatch: pytest.MonkeyPatch, model: CatalogueModel
) -> None:
    reads = []
    monkeypatch.setattr(selectors.now, "_read", lambda: reads.append(1) or selectors._read())
    client.force_login(operator)
    for _ in range(10):
        live(client)
    assert len(reads) == 1


def test_without_redis_the_wall_says_so(
    client: Client, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = connect("unix:///nonexistent/redis.sock", retries=0)
    monkeypatch.setattr(links, "client", lambda: nowhere)
    client.force_login(operator)
    assert live(client)["reachable"] is False
