"""The engine's thread: what it takes, what it ends, and what it survives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from inference_workers.contract import Cancelled, Delta, Failed, Finished, Job, Started, Usage
from inference_workers.engine.echo import EchoEngine
from inference_workers.engine.protocol import EngineEvent
from inference_workers.errors import RequestError
from inference_workers.loop import Admission, EngineLoop
from inference_workers.models.echo_folder import byte_tokenizer
from inference_workers.queue import Claim
from inference_workers.queue.log import AnyEvent
from inference_workers.sink import MemorySink
from tests.faults.house import until
from tests.inference_workers.conftest import a_job


class Stumbling(EchoEngine):
    """Fails a step whenever one of ``bad`` is in it."""

    bad: frozenset[str] = frozenset()
    full_steps = 0

    def step(self) -> list[tuple[str, EngineEvent]]:
        if self.bad & set(self._requests):
            raise RuntimeError("a kernel failed")
        return super().step()

    def add(self, job: Job, logged: Sequence[Delta] = ()) -> None:
        if job.id == "refused":
            raise RequestError("Too big. Ask for less.", code="too_big")
        if job.id == "surprising":
            raise ZeroDivisionError
        super().add(job, logged)


class Bench:
    """A loop with its engine, and what it has told."""

    def __init__(self, step_seconds: float = 0.0, slots: int = 4, lanes: int = 0) -> None:
        self.engine = Stumbling(byte_tokenizer(), step_seconds=step_seconds, slots=slots)
        self.sink = MemorySink()
        self.given_back: list[tuple[list[str], bool]] = []
        self.deaths: list[BaseException] = []
        self.room = threading.Event()
        self.loop = EngineLoop(
            self.engine,
            self.sink,
            worker="w1",
            digest="sha256:0",
            lanes=lanes,
            on_room=self.room.set,
            on_give_back=lambda jobs, crashed: self.given_back.append((list(jobs), crashed)),
            on_death=self.deaths.append,
        )
        self.loop.start()

    def take(self, job: Job, last_seq: int = 0, logged: Sequence[Delta] = ()) -> None:
        assert self.loop.reserve()
        claim = Claim(job.model_copy(update={"epoch": 1}), last_seq, False)
        self.loop.admit(Admission(claim, logged))

    def end(self, job_id: str) -> AnyEvent:
        return until(lambda: [e.event for e in self.sink.read(job_id) if e.terminal], 5, "it ends")[
            0
        ]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.stop(5)


@pytest.fixture
def slow() -> Iterator[Bench]:
    bench = Bench(step_seconds=0.01)
    yield bench
    bench.loop.stop(5)


def test_a_job_begins_with_a_start_and_ends_once(bench: Bench) -> None:
    bench.take(a_job("j1", max_tokens=3))
    assert isinstance(bench.end("j1"), Finished)
    events = [entry.event for entry in bench.sink.read("j1")]
    assert events[0] == Started(worker="w1")
    assert [type(event) for event in events[1:]] == [Delta, Delta, Delta, Finished]
    assert bench.room.wait(1)


def test_a_resumed_job_has_no_second_start(bench: Bench) -> None:
    bench.take(a_job("j1", max_tokens=3), 2, [Delta(first=0, token_ids=(0,))])
    bench.end("j1")
    entries = bench.sink.read("j1")
    assert [entry.seq for entry in entries] == [3, 4, 5]
    assert isinstance(entries[-1].event, Finished)
    assert entries[-1].event.usage.completion_tokens == 3


def test_it_takes_no_more_than_its_engine_holds(slow: Bench) -> None:
    for number in range(4):
        slow.take(a_job(f"j{number}", max_tokens=20))
    assert not slow.loop.reserve()
    for number in range(4):
        slow.end(f"j{number}")
    assert until(slow.loop.reserve, 1, "there is room again")


def test_lanes_are_not_slots() -> None:
    bench = Bench(step_seconds=0.01, slots=4, lanes=1)
    for number in range(3):
        bench.take(a_job(f"j{number}", max_tokens=20))
    assert not bench.loop.room
    assert not bench.loop.reserve()
    assert bench.loop.reserve(lane=True)
    assert not bench.loop.reserve(lane=True)
    bench.loop.unreserve()
    assert bench.loop.stats.slots == 3
    for number in range(3):
        bench.end(f"j{number}")
    assert until(bench.loop.reserve, 1, "there is room again")
    bench.loop.stop(5)


def test_a_passed_deadline_ends_a_running_job_with_what_it_made(slow: Bench) -> None:
    slow.take(a_job("j1", max_tokens=5000, deadline=time.time() + 0.2))
    slow.take(a_job("j2", max_tokens=30))
    end = slow.end("j1")
    assert isinstance(end, Failed)
    assert end.code == "deadline_exceeded"
    tokens = sum(isinstance(entry.event, Delta) for entry in slow.sink.read("j1"))
    assert end.usage.completion_tokens == tokens > 3
    assert isinstance(slow.end("j2"), Finished)


def test_a_stop_frees_slot_and_blocks_within_two_steps(slow: Bench) -> None:
    for number in range(20):
        slow.take(a_job(f"j{number}", max_tokens=5000, prompt=1 + 300 * (number % 3)))
        time.sleep(0.003 * (number % 7))
        before = slow.engine.stats().steps
        slow.sink.cancel(f"j{number}")
        slow.loop.wake()
        assert isinstance(slow.end(f"j{number}"), Cancelled)
        stats = slow.engine.stats()
        assert stats.steps - before <= 2
        assert (stats.running, stats.blocks_used) == (0, 0)


def test_a_request_that_cannot_run_fails_alone(bench: Bench) -> None:
    bench.take(a_job("refused"))
    bench.take(a_job("surprising"))
    bench.take(a_job("fine"))
    refused, surprising = bench.end("refused"), bench.end("surprising")
    assert isinstance(refused, Failed)
    assert (refused.code, refused.message) == ("too_big", "Too big. Ask for less.")
    assert refused.usage == Usage()
    assert isinstance(surprising, Failed)
    assert surprising.code == "internal"
    assert isinstance(bench.end("fine"), Finished)


def test_other_weights_than_the_jobs_are_refused(bench: Bench) -> None:
    bench.take(a_job("j1").model_copy(update={"model_digest": "sha256:1"}))
    end = bench.end("j1")
    assert isinstance(end, Failed)
    assert end.code == "model_changed"


def test_a_failed_step_gives_its_jobs_back_as_suspects_and_the_worker_lives(slow: Bench) -> None:
    slow.take(a_job("good", max_tokens=500))
    until(lambda: len(slow.sink.read("good")) > 2, 5, "it runs")
    slow.engine.bad = frozenset({"bad"})
    slow.take(a_job("bad", max_tokens=500))
    until(lambda: slow.given_back, 5, "they come back")
    assert slow.given_back == [(["bad", "good"], True)]
    assert not slow.engine.busy
    slow.take(a_job("next", max_tokens=3))
    assert isinstance(slow.end("next"), Finished)
    assert not slow.deaths


def test_an_engine_that_fails_every_step_ends_the_worker(bench: Bench) -> None:
    bench.engine.bad = frozenset({"a", "b", "c"})
    for number, job_id in enumerate("abc"):
        bench.take(a_job(job_id))
        if number < 2:
            until(lambda n=number: len(bench.given_back) > n, 5, "it comes back")  # type: ignore[misc]
    until(lambda: bench.deaths, 5, "it gives up")
    assert not bench.loop.stop(1) or not bench.loop.alive


def test_a_dropped_job_says_nothing_more(slow: Bench) -> None:
    slow.take(a_job("j1", max_tokens=5000))
    until(lambda: len(slow.sink.read("j1")) > 3, 5, "it runs")
    slow.loop.drop(["j1"])
    until(lambda: slow.loop.idle, 5, "it is gone")
    assert slow.engine.stats().running == 0
    assert slow.sink.read("j1") == []


def test_the_same_job_again_replaces_its_old_run(slow: Bench) -> None:
    slow.take(a_job("j1", max_tokens=100))
    until(lambda: len(slow.sink.read("j1")) > 3, 5, "it runs")
    slow.take(a_job("j1", max_tokens=2), 1, [])
    slow.end("j1")
    assert slow.engine.stats().running == 0


def test_a_stopping_loop_takes_nothing(bench: Bench) -> None:
    assert bench.loop.stop(5)
    assert not bench.loop.reserve()
    assert not bench.loop.alive
