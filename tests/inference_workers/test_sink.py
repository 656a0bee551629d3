"""What reaches Redis, and what is kept until it is safe there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inference_workers.contract import Delta, Finished, Started, Usage
from inference_workers.queue import Append
from inference_workers.queue.log import AnyEvent
from inference_workers.sink import MemorySink, RedisSink, Reports
from tests.faults.house import until
from tests.inference_workers.conftest import Room, a_job

EVENTS: list[AnyEvent] = [
    Started(worker="w1"),
    *(Delta(first=number, token_ids=(number,)) for number in range(5)),
    Finished(reason="length", usage=Usage(prompt_tokens=3, completion_tokens=5)),
]


@pytest.fixture
def sink(room: Room) -> Iterator[RedisSink]:
    worker = room.worker()
    for job_id in ("a", "b"):
        room.queue.enqueue(a_job(job_id))
        room.queue.claim("m", worker)
    sink = RedisSink(room.log, worker).start()
    sink.open("a", 1, 0)
    sink.open("b", 1, 0)
    yield sink
    sink.stop()


def say(sink: RedisSink, job_id: str, events: list[AnyEvent]) -> None:
    for event in events:
        sink.emit([(job_id, event)])


def reports(sink: RedisSink) -> Reports:
    return until(sink.take_reports, 3, "the sink reports")


def test_events_arrive_in_order_each_its_own_entry(room: Room, sink: RedisSink) -> None:
    say(sink, "a", EVENTS)
    say(sink, "b", EVENTS[:3])
    assert sink.flush(3)
    assert [entry.event for entry in room.log.read("a")] == EVENTS
    assert [entry.event for entry in room.log.read("b")] == EVENTS[:3]
    assert sink.holds() == {"b"}


def test_a_log_that_lost_its_tail_gets_it_again(room: Room, sink: RedisSink) -> None:
    say(sink, "a", EVENTS[:6])
    assert sink.flush(3)
    _lose(room, "a", 3)
    say(sink, "a", EVENTS[6:])
    assert sink.flush(3)
    assert [entry.event for entry in room.log.read("a")] == EVENTS


def test_an_end_that_was_lost_is_sent_again_when_asked(room: Room, sink: RedisSink) -> None:
    say(sink, "a", EVENTS)
    assert sink.flush(3)
    _lose(room, "a", 4)
    room.redis.zrem(room.keys.ended, "a")
    sink.verify()
    until(lambda: len(room.log.read("a")) == 7, 3, "the log is whole")
    assert [entry.event for entry in room.log.read("a")] == EVENTS
    assert room.log.ended() == ["a"]


def test_a_log_that_lost_what_others_wrote_is_reported(room: Room, sink: RedisSink) -> None:
    sink.open("a", 1, 5)
    say(sink, "a", EVENTS[6:])
    assert reports(sink).lost == {"a"}


def test_a_job_that_is_anothers_is_reported_and_forgotten(room: Room, sink: RedisSink) -> None:
    room.patient.release("w1", crashed=False, jobs=["a"])
    say(sink, "a", EVENTS[:2])
    assert reports(sink).dropped == {"a"}
    assert sink.holds() == {"b"}
    assert sink.pending == 0
    assert room.log.read("a") == []


def test_after_a_flush_every_job_is_reported(room: Room, sink: RedisSink) -> None:
    room.redis.flushall()
    say(sink, "a", EVENTS[:2])
    say(sink, "b", EVENTS[:2])
    found: set[str] = set()

    def both() -> bool:
        found.update(sink.take_reports().dropped)
        return found == {"a", "b"}

    until(both, 3, "both are reported")


def test_a_cancel_is_heard_without_any_append(room: Room, sink: RedisSink) -> None:
    room.queue.cancel("a")
    assert reports(sink).cancelled == {"a"}


def test_an_engine_is_asked_to_rest_while_redis_is_away(room: Room, sink: RedisSink) -> None:
    sink.stop()
    for _ in range(1000):
        sink.emit([("a", EVENTS[1])] * 9)
    assert sink.full
    sink.drop("a")
    assert not sink.full
    assert sink.pending == 0


def test_events_of_a_job_that_is_not_open_are_dropped(room: Room, sink: RedisSink) -> None:
    sink.emit([("c", EVENTS[0])])
    sink.drop("b")
    say(sink, "b", EVENTS[:2])
    assert sink.flush(3)
    assert room.log.read("b") == []


def test_memory_numbers_entries_as_redis_does() -> None:
    sink = MemorySink()
    sink.open("a", 1, 0)
    for event in EVENTS:
        sink.emit([("a", event)])
    sink.emit([("a", EVENTS[1])])
    entries = sink.read("a")
    assert [entry.seq for entry in entries] == list(range(1, 8))
    assert [entry.event for entry in entries] == EVENTS
    assert sink.read("a", after=7, timeout=0.01) == []


def _lose(room: Room, job_id: str, seq: int) -> None:
    """What a Redis that restarted from an older file knows: the log up to ``seq``, running."""
    log, job = room.keys.log(job_id), room.keys.job(job_id)
    kept = room.log.read(job_id)[:seq]
    room.redis.delete(log)
    room.redis.hset(job, mapping={"state": "running", "seq": 0, "tokens": 0, "progress": 0})
    room.redis.sadd(room.keys.worker_jobs("w1"), job_id)
    room.log.append([Append(job_id, 1, 1, [entry.event for entry in kept])], worker="w1")
