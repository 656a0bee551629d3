"""A worker that does exactly what a test says, on the real queue and the real logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from redis import Redis

from inference_workers import contract
from inference_workers.contract import Delta, Finished, Started, Usage
from inference_workers.queue import Append, FairQueue, JobLog, Leases
from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.jobs import links
from portal.jobs.inputs import TextInput
from portal.jobs.models import Job
from portal.jobs.services import create_job
from portal.teams.models import Team

NAME = "w"


@dataclass
class Worker:
    """Claims one job at a time; ``seq`` is the last number it wrote."""

    queue: FairQueue = field(default_factory=links.queue)
    log: JobLog = field(default_factory=links.log)
    leases: Leases = field(default_factory=links.leases)
    job: contract.Job | None = None
    seq: int = 0
    made: int = 0

    def claim(self) -> contract.Job:
        self.leases.register(NAME, model="echo", slots=8)
        claim = self.queue.claim("echo", NAME)
        assert claim is not None
        self.job, self.seq = claim.job, claim.last_seq
        if not self.seq:
            self.write(Started(worker=NAME))
        return claim.job

    def write(self, *events: contract.Started | Delta | Finished | contract.Failed) -> None:
        assert self.job is not None
        batch = [Append(self.job.id, self.job.epoch, self.seq + 1, events)]
        result = self.log.append(batch, worker=NAME)[0]
        assert result.ok, result
        self.seq = result.last_seq

    def say(self, *texts: str) -> None:
        for text in texts:
            self.write(Delta(first=self.made, token_ids=(self.made,), text=text))
            self.made += 1

    def finish(self) -> None:
        assert self.job is not None
        usage = Usage(prompt_tokens=len(self.job.input_ids), completion_tokens=self.made)
        self.write(Finished(reason="stop", usage=usage))

    def answer(self, *texts: str) -> contract.Job:
        job = self.claim()
        self.say(*texts)
        self.finish()
        return job


@pytest.fixture
def worker(redis: Redis) -> Worker:
    return Worker()


@pytest.fixture
def make_job(
    redis: Redis, transactional_db: None, echo: CatalogueModel, team: Team, member: User
) -> Callable[..., Job]:
    def make(text: str = "hello", **given: object) -> Job:
        what = {"team": team, "user": member, "source": "test", "model": "echo",
                "input": TextInput(text), "sampling": {"max_tokens": 8}}  # fmt: skip
        return create_job(**(what | given))  # type: ignore[arg-type]

    return make
