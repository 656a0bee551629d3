"""What the workers' tests share: one real Valkey per run, an empty one for each test."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
import structlog

from inference_workers.contract import Job, Sampling
from inference_workers.queue import FairQueue, JobLog, Keys, Leases, connect
from tests.faults.valkey import Valkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    # A unix socket's path may have about 100 characters, and pytest's own folders can be longer.
    folder = Path(tempfile.mkdtemp(prefix="llmasos-"))
    server = Valkey(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


class Room:
    """Queue, leases and logs under a prefix of their own, with a lease short enough to wait for."""

    _numbers = count()

    def __init__(self, client: redis.Redis, *, lease_seconds: float = 0.3) -> None:
        self.redis = client
        self.keys = Keys(f"t{next(self._numbers)}")
        self.queue = FairQueue(client, self.keys)
        self.log = JobLog(client, self.keys)
        self.leases = Leases(client, self.keys, lease_seconds=lease_seconds)
        self.patient = Leases(client, self.keys, lease_seconds=600)

    def worker(self, name: str = "w1") -> str:
        """Register a worker whose lease lasts longer than any test."""
        self.patient.register(name, model="m", slots=8)
        return name


@pytest.fixture
def room(valkey: Valkey) -> Iterator[Room]:
    client = connect(valkey.url)
    client.flushall()
    yield Room(client)
    client.close()


def a_job(
    job_id: str = "j1",
    team: str = "red",
    *,
    prompt: int = 3,
    max_tokens: int = 8,
    deadline: float | None = None,
    epoch: int = 0,
) -> Job:
    return Job(
        id=job_id, team=team, source="test", model="m", model_digest="sha256:0",
        input_ids=tuple(range(prompt)), sampling=Sampling(max_tokens=max_tokens), seed=7,
        deadline=deadline, epoch=epoch,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A worker's start inside the test process sets logging up anew: put it back afterwards."""
    root, known = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**known)
