"""R12: whatever happens in whatever order, a job ends once, its numbers grow, its bill is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference_workers.contract import Delta, Entry, Finished, Started, Usage
from inference_workers.queue import Append, connect
from inference_workers.queue.log import AnyEvent
from tests.faults.report import usage_of
from tests.faults.valkey import Valkey
from tests.inference_workers.conftest import Room, a_job

TEAMS = ["red", "blue"]
WORKERS = ["w1", "w2", "w3"]
PROMPT = 3


@dataclass
class Run:
    """A worker's run of a job: it may be stale and not know it."""

    job_id: str
    worker: str
    epoch: int
    seq: int
    tokens: int
    sent: list[tuple[int, AnyEvent]] = field(default_factory=list)


class Life(RuleBasedStateMachine):
    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(self.client)
        self.jobs: list[str] = []
        self.runs: list[Run] = []
        self.seen: dict[str, list[Entry]] = {}
        for worker in WORKERS:
            self.room.worker(worker)

    def the(self, index: int) -> str:
        return self.jobs[index % len(self.jobs)]

    @rule(team=st.sampled_from(TEAMS), front=st.booleans())
    def submit(self, team: str, front: bool) -> None:
        job_id = f"j{len(self.jobs)}"
        self.jobs.append(job_id)
        assert self.room.queue.enqueue(a_job(job_id, team, prompt=PROMPT), front=front)

    @precondition(lambda self: self.jobs)
    @rule(index=st.integers(0, 99))
    def submit_again(self, index: int) -> None:
        assert not self.room.queue.enqueue(a_job(self.the(index)))

    @rule(worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> None:
        claim = self.room.queue.claim("m", worker)
        if claim is None:
            return
        log = self.room.log.read(claim.job.id)
        assert claim.last_seq == len(log)
        tokens = sum(len(e.event.token_ids) for e in log if isinstance(e.event, Delta))
        run = Run(claim.job.id, worker, claim.job.epoch, claim.last_seq, tokens)
        self.runs.append(run)
        if run.seq == 0:
            self.send(run, Started(worker=worker))

    @precondition(lambda self: self.runs)
    @rule(index=st.integers(0, 99), count=st.integers(1, 3))
    def generate(self, index: int, count: int) -> None:
        run = self.runs[index % len(self.runs)]
        ids = tuple(range(count))
        self.send(run, Delta(first=run.tokens, token_ids=ids))

    @precondition(lambda self: self.runs)
    @rule(index=st.integers(0, 99))
    def finish(self, index: int) -> None:
        run = self.runs[index % len(self.runs)]
        usage = Usage(prompt_tokens=PROMPT, completion_tokens=run.tokens)
        self.send(run, Finished(reason="stop", usage=usage))

    @precondition(lambda self: any(run.sent for run in self.runs))
    @rule(index=st.integers(0, 99), first=st.integers(0, 99))
    def send_again(self, index: int, first: int) -> None:
        """An answer was lost: the worker sends what it has sent, from anywhere."""
        runs = [run for run in self.runs if run.sent]
        run = runs[index % len(runs)]
        part = run.sent[first % len(run.sent) :]
        item = Append(run.job_id, run.epoch, part[0][0], [event for _, event in part])
        self.room.log.append([item], worker=run.worker)

    def send(self, run: Run, event: AnyEvent) -> None:
        item = Append(run.job_id, run.epoch, run.seq + 1, [event])
        (result,) = self.room.log.append([item], worker=run.worker)
        if not result.ok:
            assert result.reason in ("fenced", "ended")
            self.runs.remove(run)
            return
        run.seq = result.last_seq
        run.sent.append((run.seq, event))
        if isinstance(event, Delta):
            run.tokens += len(event.token_ids)

    @precondition(lambda self: self.jobs)
    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        job_id = self.the(index)
        before = self.room.queue.state(job_id)
        assert before is not None
        answer = {"queued": "removed", "running": "flagged", "ended": "unknown"}[before.state]
        assert self.room.queue.cancel(job_id) == answer

    @rule(worker=st.sampled_from(WORKERS), crashed=st.booleans())
    def release(self, worker: str, crashed: bool) -> None:
        """Its runs go on without knowing: that is what a zombie does."""
        self.room.patient.release(worker, crashed=crashed)
        self.room.worker(worker)

    @rule(worker=st.sampled_from(WORKERS))
    def lapse(self, worker: str) -> None:
        self.room.redis.zadd(self.room.keys.workers, {worker: 0})
        self.room.leases.reap()
        assert self.room.redis.zscore(self.room.keys.workers, worker) is None
        self.room.worker(worker)

    @invariant()
    def logs_only_grow(self) -> None:
        for job_id in self.jobs:
            entries = self.room.log.read(job_id)
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
            epochs = [entry.epoch for entry in entries]
            assert epochs == sorted(epochs)
            made = 0
            for entry in entries:
                if isinstance(entry.event, Delta):
                    assert entry.event.first == made, "a token is repeated or missing"
                    made += len(entry.event.token_ids)
            seen = self.seen.get(job_id, [])
            assert entries[: len(seen)] == seen
            self.seen[job_id] = entries

    @invariant()
    def a_job_ends_once_and_is_billed_what_it_made(self) -> None:
        ended = set(self.room.log.ended(1000))
        for job_id in self.jobs:
            entries = self.room.log.read(job_id)
            state = self.room.queue.state(job_id)
            assert state is not None
            ends = [entry for entry in entries if entry.terminal]
            assert len(ends) == (state.state == "ended")
            assert (job_id in ended) == bool(ends)
            tokens = sum(len(e.event.token_ids) for e in entries if isinstance(e.event, Delta))
            assert state.tokens == tokens
            assert state.last_seq == len(entries)
            if ends:
                assert entries[-1] == ends[0]
                assert usage_of(entries).completion_tokens == tokens
                assert usage_of(entries).prompt_tokens in (0, PROMPT)

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        room = self.room
        held = {w: room.redis.smembers(room.keys.worker_jobs(w)) for w in WORKERS}
        queued = 0
        for job_id in self.jobs:
            state = room.queue.state(job_id)
            assert state is not None
            holders = [worker for worker in WORKERS if job_id in held[worker]]
            assert holders == ([state.worker] if state.state == "running" else [])
            assert (room.queue.position(job_id) is not None) == (state.state == "queued")
            queued += state.state == "queued"
        assert room.queue.depth("m") == queued

    @invariant()
    def a_worker_tests_one_suspect_at_a_time(self) -> None:
        for worker in WORKERS:
            states = {job_id: self.room.queue.state(job_id) for job_id in self.jobs}
            suspects = [
                job_id
                for job_id, state in states.items()
                if state and state.suspect and state.worker == worker and state.state == "running"
            ]
            under_test = self.room.redis.hget(self.room.keys.worker(worker), "suspect")
            assert suspects == ([under_test] if under_test else [])

    def teardown(self) -> None:
        """However it came to this: every job can still be brought to an end."""
        for _ in range(3 * len(self.jobs) + 3):
            for worker in WORKERS:
                self.claim(worker)
            for run in list(self.runs):
                self.finish(self.runs.index(run))
        for job_id in self.jobs:
            state = self.room.queue.state(job_id)
            assert state is not None
            assert state.state == "ended"
            self.room.queue.forget(job_id, 0)


@pytest.fixture
def life(valkey: Valkey) -> Iterator[type[Life]]:
    client = connect(valkey.url)
    client.flushall()
    Life.client = client
    # A server younger than a lease does not reap.
    while client.info("server")["uptime_in_seconds"] < 1:
        pass
    yield Life
    client.close()


def test_the_state_machine_is_sound(life: type[Life]) -> None:
    case = life.TestCase
    case.settings = settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    case().runTest()
