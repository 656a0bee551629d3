"""The queue between teams and within one."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_workers.contract import Cancelled, Delta, Failed, Finished, Usage
from inference_workers.queue import Append, QueueFull, aconnect
from inference_workers.queue.fair import FairQueue
from tests.faults.valkey import Valkey
from tests.inference_workers.conftest import Room, a_job


def served(room: Room, worker: str) -> list[str]:
    ids = []
    while claim := room.queue.claim("m", worker):
        ids.append(claim.job.id)
    return ids


def test_a_job_comes_back_as_it_was_enqueued(room: Room) -> None:
    worker = room.worker()
    job = a_job(deadline=time.time() + 60)
    assert room.queue.enqueue(job)
    claim = room.queue.claim("m", worker)
    assert claim is not None
    assert claim.job == job.model_copy(update={"epoch": 1})
    assert (claim.last_seq, claim.suspect) == (0, False)


def test_enqueueing_twice_is_one_job(room: Room) -> None:
    worker = room.worker()
    assert room.queue.enqueue(a_job())
    assert not room.queue.enqueue(a_job())
    assert served(room, worker) == ["j1"]
    assert not room.queue.enqueue(a_job())


def test_a_full_queue_refuses(room: Room) -> None:
    room.queue.enqueue(a_job("a"), limit=2)
    room.queue.enqueue(a_job("b"), limit=2)
    with pytest.raises(QueueFull):
        room.queue.enqueue(a_job("c"), limit=2)
    assert room.queue.depth("m") == 2
    assert not room.queue.enqueue(a_job("a"), limit=2)


def test_a_team_is_served_in_order_and_the_front_goes_first(room: Room) -> None:
    worker = room.worker()
    for job_id in "abc":
        room.queue.enqueue(a_job(job_id))
    room.queue.enqueue(a_job("z"), front=True)
    assert served(room, worker) == ["z", "a", "b", "c"]


def test_teams_take_turns(room: Room) -> None:
    worker = room.worker()
    for number in range(4):
        room.queue.enqueue(a_job(f"r{number}", "red"))
    for number in range(2):
        room.queue.enqueue(a_job(f"b{number}", "blue"))
    order = served(room, worker)
    assert {job_id[0] for job_id in order[:2]} == {job_id[0] for job_id in order[2:4]} == {"r", "b"}
    assert order[4:] == ["r2", "r3"]


def test_a_full_worker_takes_a_newcomers_job_into_a_lane(room: Room) -> None:
    worker = room.worker()
    for number in range(4):
        room.queue.enqueue(a_job(f"r{number}", "red", prompt=5))
    for _ in range(2):
        room.queue.claim("m", worker)
    assert room.queue.claim("m", worker, lane=True) is None, "it serves that team already"
    room.queue.enqueue(a_job("b0", "blue", prompt=5))
    room.queue.enqueue(a_job("b1", "blue", prompt=5))
    claim = room.queue.claim("m", worker, lane=True)
    assert claim is not None
    assert claim.job.id == "b0"
    assert room.queue.claim("m", worker, lane=True) is None
    assert room.queue.claim("m", room.worker("w2"), lane=True) is not None


def test_of_those_that_stand_level_a_lane_takes_one_that_is_not_served(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job("a0", "a", prompt=5))
    room.queue.claim("m", worker)
    room.queue.enqueue(a_job("a1", "a", prompt=5))
    room.queue.enqueue(a_job("z0", "z", prompt=5))
    claim = room.queue.claim("m", worker, lane=True)
    assert claim is not None
    assert claim.job.id == "z0"


def test_a_lane_turns_no_order_round(room: Room) -> None:
    """Nobody gets past a team that has had less, even where the worker serves that team."""
    worker = room.worker()
    room.queue.enqueue(a_job("r0", "red", prompt=1))
    room.queue.enqueue(a_job("b0", "blue", prompt=50))
    for _ in range(2):
        room.queue.claim("m", worker)
    room.queue.enqueue(a_job("r1", "red", prompt=1))
    room.queue.enqueue(a_job("b1", "blue", prompt=1))
    end = Append("b0", 1, 1, [Finished(reason="stop", usage=Usage())])
    assert room.log.append([end], worker=worker)[0].ok
    assert room.queue.claim("m", worker, lane=True) is None


def test_workers_with_and_without_room_are_woken_apart(room: Room) -> None:
    room.queue.enqueue(a_job())
    assert room.queue.wait_jobs("m", 0.02, full=True)
    assert room.queue.wait_jobs("m", 0.02)
    assert not room.queue.wait_jobs("m", 0.02, full=True)


def test_being_away_earns_no_credit(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job("b0", "blue", prompt=1))
    served(room, worker)
    for number in range(50):
        room.queue.enqueue(a_job(f"r{number}", "red", prompt=10))
    for _ in range(20):
        room.queue.claim("m", worker)
    for number in range(10):
        room.queue.enqueue(a_job(f"c{number}", "blue", prompt=10))
    blue = sum(job_id.startswith("c") for job_id in served(room, worker)[:10])
    assert 4 <= blue <= 6


def test_positions_count_down_to_the_next_one(room: Room) -> None:
    worker = room.worker()
    for number in range(3):
        room.queue.enqueue(a_job(f"r{number}", "red"))
    room.queue.enqueue(a_job("b0", "blue"))
    waiting = ["r0", "r1", "r2", "b0"]
    while waiting:
        positions = {job_id: room.queue.position(job_id) for job_id in waiting}
        assert sorted(positions.values(), key=str) == [*range(1, len(waiting) + 1)], positions
        claim = room.queue.claim("m", worker)
        assert claim is not None
        assert positions[claim.job.id] == 1
        waiting.remove(claim.job.id)
    assert room.queue.position("r0") is None


async def test_the_async_twins_say_the_same(room: Room, valkey: Valkey) -> None:
    room.queue.enqueue(a_job("a"))
    room.queue.enqueue(a_job("b"))
    client = aconnect(valkey.url)
    twin = FairQueue(None, room.keys, aredis=client)
    assert await twin.aposition("b") == 2
    assert await twin.adepth("m") == 2
    assert await twin.acancel("a") == "removed"
    assert await twin.astate("a") == room.queue.state("a")
    assert await twin.aposition("b") == 1
    await client.aclose()


def test_nothing_is_claimed_without_a_live_lease(room: Room) -> None:
    room.queue.enqueue(a_job())
    assert room.queue.claim("m", "nobody") is None
    room.leases.register("w1", model="m", slots=1)
    time.sleep(0.35)
    assert room.queue.claim("m", "w1") is None
    assert room.queue.depth("m") == 1


def test_nothing_is_claimed_while_paused_or_draining(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    room.queue.pause("m")
    assert room.queue.claim("m", worker) is None
    room.queue.resume("m")
    room.leases.set_paused(worker, True)
    assert room.queue.claim("m", worker) is None
    room.leases.set_paused(worker, False)
    room.leases.request_drain(worker)
    assert room.queue.claim("m", worker) is None
    assert room.queue.claim("m", room.worker("w2")) is not None


def test_cancelling_a_queued_job_ends_it_at_once(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    assert room.queue.cancel("j1") == "removed"
    (entry,) = room.log.read("j1")
    assert (entry.seq, entry.event) == (1, Cancelled(usage=Usage()))
    assert room.queue.claim("m", worker) is None
    assert room.log.ended() == ["j1"]
    assert room.queue.cancel("j1") == "unknown"


def test_cancelling_a_running_job_reaches_its_worker(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    room.queue.claim("m", worker)
    assert room.queue.cancel("j1") == "flagged"
    assert room.log.cancels(worker) == {"j1"}
    delta = Append("j1", 1, 1, [Delta(first=0, token_ids=(5,))])
    assert room.log.append([delta], worker=worker)[0].cancelled
    end = Append("j1", 1, 2, [Cancelled(usage=Usage(prompt_tokens=3, completion_tokens=1))])
    assert not room.log.append([end], worker=worker)[0].cancelled
    assert room.log.cancels(worker) == frozenset()


def test_a_cancelled_job_does_not_outlive_its_worker(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    room.queue.claim("m", worker)
    room.log.append([Append("j1", 1, 1, [Delta(first=0, token_ids=(5, 6))])], worker=worker)
    room.queue.cancel("j1")
    assert room.leases.release(worker, crashed=True) == ["j1"]
    last = room.log.read("j1")[-1]
    assert last.event == Cancelled(usage=Usage(prompt_tokens=3, completion_tokens=2))
    assert room.queue.depth("m") == 0


def test_a_passed_deadline_ends_a_queued_job(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job("late", deadline=time.time() - 1))
    room.queue.enqueue(a_job("late too", "blue", deadline=time.time() - 1))
    room.queue.enqueue(a_job("fine", deadline=time.time() + 60))
    assert room.leases.reap()
    assert served(room, worker) == ["fine"]
    for job_id in ("late", "late too"):
        event = room.log.read(job_id)[-1].event
        assert isinstance(event, Failed)
        assert event.code == "deadline_exceeded"


def test_a_forgotten_job_leaves_nothing_behind(room: Room) -> None:
    worker = room.worker()
    room.patient.set_loading("m", 0.5)
    before = set(room.redis.keys("*"))
    for number, job_id in enumerate(["queued", "running", "ended"]):
        room.queue.enqueue(a_job(job_id, f"team {number}"))
    while claim := room.queue.claim("m", worker):
        if claim.job.id == "queued":
            room.leases.release(worker, crashed=False, jobs=["queued"])
            break
    room.queue.cancel("ended")
    for job_id in ("queued", "running", "ended"):
        room.queue.forget(job_id, 0)
    assert room.queue.claim("m", worker) is None
    kept = {
        room.keys.idle("m"),
        room.keys.wake("m"),
        room.keys.wake_full("m"),
        room.keys.prefix + ":order",
        room.keys.prefix + ":fair:m",
    }
    assert set(room.redis.keys("*")) - before - {room.keys.ended_notice} <= kept


def test_a_new_job_wakes_a_waiting_worker(room: Room) -> None:
    assert not room.queue.wait_jobs("m", 0.02)
    for number in range(20):
        room.queue.enqueue(a_job(f"j{number}"))
    assert room.queue.wait_jobs("m", 0.02)
    assert room.redis.llen(room.keys.wake("m")) < 4
    assert room.queue.wait("m") >= 0


def test_recorded_waits_for_the_end(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    assert not room.log.recorded("j1")
    room.queue.claim("m", worker)
    end = Finished(reason="stop", usage=Usage(prompt_tokens=3))
    room.log.append([Append("j1", 1, 1, [end])], worker=worker)
    assert room.log.wait_ended(1)
    assert room.log.ended() == ["j1"]
    assert room.log.recorded("j1", 60)
    assert room.log.ended() == []
    assert 0 < room.redis.ttl(room.keys.log("j1")) <= 60
    assert room.redis.hget(room.keys.job("j1"), "payload") is None
    assert not room.log.wait_ended(0.05)


work = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=12, max_size=30)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(red=work, blue=work, slots=st.integers(1, 4), weight=st.sampled_from([1.0, 2.0, 0.5]))
def test_two_backlogged_teams_stay_within_the_proven_bound(
    room: Room, red: list[tuple[int, int]], blue: list[tuple[int, int]], slots: int, weight: float
) -> None:
    """Served tokens over weight differ by at most 2 max(largest prompt, what a batch can make)."""
    room = Room(room.redis)
    worker = room.worker()
    sizes: dict[str, tuple[int, int]] = {}
    weights = {"red": weight, "blue": 1.0}
    for team, jobs in (("red", red), ("blue", blue)):
        for number, (prompt, length) in enumerate(jobs):
            sizes[f"{team}{number}"] = (prompt, length)
            room.queue.enqueue(a_job(f"{team}{number}", team, prompt=prompt), weight=weights[team])
    prompts = max(
        prompt / weights[t] for t in weights for prompt, _ in (red if t == "red" else blue)
    )
    lengths = max(n / weights[t] for t in weights for _, n in (red if t == "red" else blue))
    bound = 2 * max(prompts, slots * lengths)
    served = dict.fromkeys(weights, 0.0)
    waiting = {"red": len(red), "blue": len(blue)}
    running: dict[str, int] = {}
    team_of: dict[str, str] = {}
    while True:
        while len(running) < slots and (claim := room.queue.claim("m", worker)):
            job = claim.job
            running[job.id], team_of[job.id] = 0, job.team
            waiting[job.team] -= 1
            served[job.team] += len(job.input_ids) / weights[job.team]
        if not (waiting["red"] and waiting["blue"]):
            break
        assert len(running) == slots, "a slot idles while work waits"
        assert abs(served["red"] - served["blue"]) <= bound
        for job_id, made in list(running.items()):
            delta = Delta(first=made, token_ids=(1,))
            (result,) = room.log.append([Append(job_id, 1, made + 1, [delta])], worker=worker)
            assert result.ok
            served[team_of[job_id]] += 1 / weights[team_of[job_id]]
            running[job_id] += 1
            if running[job_id] == sizes[job_id][1]:
                end = Finished(reason="length", usage=Usage())
                room.log.append([Append(job_id, 1, made + 2, [end])], worker=worker)
                del running[job_id]
