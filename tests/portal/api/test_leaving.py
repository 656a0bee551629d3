"""Callers that go away, come back, or repeat themselves; and a portal that shuts down."""

from __future__ import annotations

import json
import random
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from openai import ConflictError, OpenAI
from redis import Redis

from inference_workers.contract import Cancelled, Entry, Finished
from inference_workers.queue.clients import connect
from inference_workers.queue.fair import FairQueue
from inference_workers.queue.leases import Leases
from inference_workers.queue.log import JobLog
from tests.running import MODEL, Running, wait_for

LONG = {"model": MODEL, "prompt": "and on ", "max_tokens": 4000, "temperature": 0}


@pytest.fixture(scope="module")
def valkey(running: Running) -> Iterator[Redis]:
    client = connect(running.valkey.url)
    yield client
    client.close()


def job_id(answer_id: str) -> str:
    return answer_id.partition("-")[2]


def last(valkey: Redis, job: str) -> Entry | None:
    entries = JobLog(valkey).read(job, count=10_000)
    return entries[-1] if entries else None


def ended(valkey: Redis, job: str) -> Entry | None:
    entry = last(valkey, job)
    return entry if entry is not None and entry.terminal else None


def leave_in_mid_stream(client: OpenAI, **headers: str) -> str:
    """Read a little of a long answer and go. The job's id."""
    stream = client.completions.create(**LONG, stream=True, extra_headers=headers)  # type: ignore[call-overload]
    chunks = [next(stream) for _ in range(4)]
    stream.close()
    return job_id(chunks[0].id)


def test_a_caller_that_leaves_a_stream_stops_the_job(client: OpenAI, valkey: Redis) -> None:
    job = leave_in_mid_stream(client)
    assert wait_for(lambda: ended(valkey, job) is not None, 5)
    entry = ended(valkey, job)
    assert entry is not None
    assert isinstance(entry.event, Cancelled)
    assert 0 < entry.event.usage.completion_tokens < 4000


def test_a_caller_that_leaves_while_waiting_stops_the_job(
    running: Running, api_key: str, valkey: Redis
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    before = busy(valkey)
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{running.url}/v1/completions", json=LONG, headers=headers, timeout=1)
    assert wait_for(lambda: busy(valkey) <= before, 5)


def busy(valkey: Redis) -> int:
    """Jobs queued or running."""
    running = sum(
        valkey.scard(Leases(valkey).keys.worker_jobs(w.name)) for w in Leases(valkey).workers()
    )
    return running + FairQueue(valkey).depth(MODEL)


def test_callers_that_leave_at_any_moment_leave_nothing_running(
    running: Running, api_key: str, valkey: Redis
) -> None:
    """Cuts fall before the body is read, while the row is written, before the first chunk …"""
    body = json.dumps(LONG | {"stream": True}).encode()
    request = (
        b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + api_key.encode() + b"\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    moments = random.Random(20261124)
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", running.port)) as caller:
            caller.sendall(request)
            time.sleep(moments.random() * 0.15)
    assert wait_for(lambda: busy(valkey) == 0, 10), f"{busy(valkey)} jobs go on for nobody"


def test_a_caller_with_an_idempotency_key_may_come_back(client: OpenAI, valkey: Redis) -> None:
    key = uuid.uuid4().hex
    job = leave_in_mid_stream(client, **{"Idempotency-Key": key})
    time.sleep(1)
    assert ended(valkey, job) is None
    stream = client.completions.create(  # type: ignore[call-overload]
        **LONG, stream=True, extra_headers={"Idempotency-Key": key}
    )
    text = ""
    for chunk in stream:
        assert job_id(chunk.id) == job
        text += chunk.choices[0].text
        if len(text) > 400:
            break
    stream.close()
    assert text.startswith("and on and on ")
    FairQueue(valkey).cancel(job)


def test_one_key_makes_one_job_however_often_it_is_sent(client: OpenAI) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}

    def ask(_: int) -> tuple[str, str]:
        answer = client.completions.create(
            model=MODEL, prompt="x", max_tokens=5, n=2, extra_headers=headers
        )
        return answer.id, answer.choices[1].text

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(ask, range(20)))
    assert len(answers) == 1


def test_a_key_cannot_be_used_for_another_request(client: OpenAI) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    client.completions.create(model=MODEL, prompt="x", max_tokens=1, extra_headers=headers)
    with pytest.raises(ConflictError) as caught:
        client.completions.create(model=MODEL, prompt="y", max_tokens=1, extra_headers=headers)
    assert caught.value.code == "idempotency_conflict"


def test_two_teams_may_use_the_same_key(running: Running, client: OpenAI) -> None:
    headers = {"Idempotency-Key": "the-same"}
    other = client.with_options(api_key=running.make_key("other@example.org"))
    asked: dict[str, Any] = {"model": MODEL, "prompt": "x", "max_tokens": 1}
    first = client.completions.create(**asked, extra_headers=headers)
    second = other.completions.create(**asked, extra_headers=headers)
    assert first.id != second.id


def test_a_portal_that_shuts_down_cancels_nothing(
    running: Running, client: OpenAI, valkey: Redis
) -> None:
    short = LONG | {"max_tokens": 600}
    stream = client.completions.create(**short, stream=True)  # type: ignore[call-overload]
    job = job_id(next(iter(stream)).id)
    try:
        running.stop("portal")
        assert wait_for(lambda: ended(valkey, job) is not None, 20)
        entry = ended(valkey, job)
        assert entry is not None
        assert isinstance(entry.event, Finished)
        assert entry.event.usage.completion_tokens == 600
    finally:
        running.start("portal")
        running.wait_ready()
