"""What a job's log promises its readers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_workers.contract import Delta, Finished, Started, Usage
from inference_workers.queue import Append, JobLog, aconnect, broker_url
from inference_workers.queue.clients import client_url
from inference_workers.queue.log import AnyEvent
from tests.faults.valkey import Valkey
from tests.inference_workers.conftest import Room, a_job

EVENTS: list[AnyEvent] = [
    Started(worker="w1"),
    *(Delta(first=number, token_ids=(number,), text=f"t{number}é") for number in range(6)),
    Finished(reason="length", usage=Usage(prompt_tokens=3, completion_tokens=6)),
]


def running(room: Room, job_id: str = "j1") -> str:
    worker = room.worker()
    room.queue.enqueue(a_job(job_id))
    assert room.queue.claim("m", worker)
    return worker


def test_entries_are_numbered_from_one_and_read_as_written(room: Room) -> None:
    worker = running(room)
    room.log.append([Append("j1", 1, 1, EVENTS)], worker=worker)
    entries = room.log.read("j1")
    assert [entry.seq for entry in entries] == list(range(1, 9))
    assert [entry.event for entry in entries] == EVENTS
    assert [entry.terminal for entry in entries] == [False] * 7 + [True]
    assert room.log.read("j1", after=5) == entries[5:]
    assert room.log.read("j1", after=2, count=3) == entries[2:5]
    assert room.log.read("j1", after=8) == []


def test_an_entry_says_when_it_was_logged(room: Room) -> None:
    worker = running(room)
    room.log.append([Append("j1", 1, 1, EVENTS[:1])], worker=worker)
    room.log.append([Append("j1", 1, 2, EVENTS[1:2])], worker=worker)
    assert room.queue.cancel("j1") == "flagged"
    room.leases.release(worker, crashed=True)  # ends it: the terminal entry is the script's
    times = [entry.at for entry in room.log.read("j1")]
    assert len(times) == 3
    state = room.queue.state("j1")
    assert state is not None
    assert state.claimed_at is not None
    assert state.claimed_at <= times[0] <= times[1] <= times[2]
    assert times[2] - times[0] < 60


def test_a_gap_is_refused_and_says_what_is_missing(room: Room) -> None:
    worker = running(room)
    room.log.append([Append("j1", 1, 1, EVENTS[:2])], worker=worker)
    (result,) = room.log.append([Append("j1", 1, 4, EVENTS[3:4])], worker=worker)
    assert (result.ok, result.last_seq, result.reason) == (False, 2, "gap")


def test_nothing_follows_the_end(room: Room) -> None:
    worker = running(room)
    room.log.append([Append("j1", 1, 1, EVENTS)], worker=worker)
    (again,) = room.log.append([Append("j1", 1, 1, EVENTS)], worker=worker)
    assert again.ok, "the end was logged, and its answer lost: sending it again is fine"
    (more,) = room.log.append([Append("j1", 1, 9, EVENTS[1:2])], worker=worker)
    assert (more.ok, more.reason) == (False, "ended")
    assert len(room.log.read("j1")) == 8


def test_an_unknown_job_says_so(room: Room) -> None:
    (result,) = room.log.append([Append("never", 1, 1, EVENTS[:1])], worker="w1")
    assert (result.ok, result.reason) == (False, "unknown")


def test_one_batch_serves_many_jobs_each_by_itself(room: Room) -> None:
    worker = room.worker()
    for job_id in "abc":
        room.queue.enqueue(a_job(job_id))
        room.queue.claim("m", worker)
    batch = [
        Append("a", 1, 1, EVENTS[:3]),
        Append("b", 9, 1, EVENTS[:1]),
        Append("never", 1, 1, EVENTS[:1]),
        Append("c", 1, 1, EVENTS),
        Append("a", 1, 4),
    ]
    results = room.log.append(batch, worker=worker)
    assert [result.reason for result in results] == ["", "fenced", "unknown", "", ""]
    assert [result.last_seq for result in results] == [3, 0, 0, 8, 3]


def test_usage_and_times_follow_the_log(room: Room) -> None:
    worker = running(room)
    room.log.append([Append("j1", 1, 1, EVENTS[:4])], worker=worker)
    state = room.queue.state("j1")
    assert state is not None
    assert (state.state, state.last_seq, state.tokens) == ("running", 4, 3)
    times = (state.queued_at, state.claimed_at, state.first_token_at, state.last_token_at)
    assert list(times) == sorted(time for time in times if time)
    assert state.ended_at is None


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sends=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), max_size=20))
def test_whatever_is_sent_again_the_log_has_no_gap_and_no_repeat(
    room: Room, sends: list[tuple[int, int]]
) -> None:
    room = Room(room.redis)
    worker = running(room)
    for first, last in [*sends, (1, 8)]:
        room.log.append([Append("j1", 1, first, EVENTS[first - 1 : last])], worker=worker)
        entries = room.log.read("j1")
        assert [entry.event for entry in entries] == EVENTS[: len(entries)]
        state = room.queue.state("j1")
        assert state is not None
        assert state.tokens == sum(isinstance(entry.event, Delta) for entry in entries)
    assert len(room.log.read("j1")) == 8


def test_after_a_total_loss_the_log_begins_again(room: Room) -> None:
    worker = running(room)
    room.log.append([Append("j1", 1, 1, EVENTS[:5])], worker=worker)
    room.redis.flushall()
    assert room.log.append([Append("j1", 1, 6, EVENTS[5:])], worker=worker)[0].reason == "unknown"
    room.worker()
    assert room.queue.enqueue(a_job(epoch=1000))
    claim = room.queue.claim("m", worker)
    assert claim is not None
    assert (claim.job.epoch, claim.last_seq) == (1001, 0)
    assert room.log.append([Append("j1", 1, 1, EVENTS[:1])], worker=worker)[0].reason == "fenced"
    assert room.log.append([Append("j1", 1001, 1, EVENTS)], worker=worker)[0].ok
    assert [entry.event for entry in room.log.read("j1", after=5)] == EVENTS[5:]


async def test_one_async_read_serves_many_logs(room: Room, valkey: Valkey) -> None:
    worker = running(room, "a")
    room.queue.enqueue(a_job("b"))
    room.queue.claim("m", worker)
    room.log.append([Append("a", 1, 1, EVENTS[:3]), Append("b", 1, 1, EVENTS[:1])], worker=worker)
    client = aconnect(valkey.url, blocking=True)
    twin = JobLog(None, room.keys, aredis=client)
    assert await twin.aread("a") == room.log.read("a")
    found = await twin.aread_many({"a": 1, "b": 0}, block_ms=1000)
    assert {job_id: [e.seq for e in entries] for job_id, entries in found.items()} == {
        "a": [2, 3],
        "b": [1],
    }
    assert await twin.aread_many({"a": 3, "b": 1}, block_ms=20) == {}
    await client.aclose()


@pytest.mark.parametrize(
    ("client", "broker"),
    [
        ("unix:///data/redis.sock", "redis+socket:///data/redis.sock"),
        ("unix:///data/redis.sock?db=2", "redis+socket:///data/redis.sock?virtual_host=2"),
        ("redis://:pw@host:6379/1", "redis://:pw@host:6379/1"),
    ],
)
def test_both_spellings_of_a_url_are_understood(client: str, broker: str) -> None:
    assert broker_url(client) == broker
    assert client_url(broker) == client
    assert client_url(client) == client
    assert broker_url(broker) == broker
