"""Workers that live, and what becomes of the jobs of those that don't."""

from __future__ import annotations

import time

from inference_workers.contract import Delta, Failed, Finished, Started, Usage
from inference_workers.queue import Append, Claim, WorkerInfo
from tests.inference_workers.conftest import Room, a_job


def token(job_id: str, epoch: int, seq: int) -> Append:
    return Append(job_id, epoch, seq, [Delta(first=seq - 1, token_ids=(seq,))])


def claimed(room: Room, worker: str) -> Claim:
    claim = room.queue.claim("m", worker)
    assert claim is not None
    return claim


def reap_until(room: Room, count: int, timeout: float = 3.0) -> list[str]:
    """Reap until ``count`` jobs came back: the server must be as old as a lease to judge."""
    found: list[str] = []
    end = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < end:
        found += room.leases.reap()
        time.sleep(0.02)
    return found


def test_a_lapsed_workers_jobs_go_to_the_front_with_the_next_epoch(room: Room) -> None:
    room.leases.register("dead", model="m", slots=4)
    for job_id in "abc":
        room.queue.enqueue(a_job(job_id))
    assert [claimed(room, "dead").job.id for _ in "ab"] == ["a", "b"]
    assert room.leases.reap() == []
    assert sorted(reap_until(room, 2)) == ["a", "b"]
    assert room.leases.reap() == []
    worker = room.worker()
    first = claimed(room, worker)
    assert (first.job.id, first.job.epoch, first.suspect) == ("a", 2, True)
    state = room.queue.state("a")
    assert state is not None
    assert (state.state, state.worker, state.crashes) == ("running", worker, 1)


def test_a_renewed_lease_does_not_lapse(room: Room) -> None:
    info = WorkerInfo(name="w1", model="m", state="ready")
    room.leases.register("w1", model="m", slots=4)
    room.queue.enqueue(a_job())
    claimed(room, "w1")
    for _ in range(8):
        orders = room.leases.renew("w1", info)
        assert orders.registered
        assert orders.jobs == {"j1"}
        assert room.leases.reap() == []
        time.sleep(0.1)
    assert [worker.name for worker in room.leases.workers()] == ["w1"]
    time.sleep(0.35)
    assert room.leases.workers() == []


def test_a_reaped_worker_learns_that_it_is_not_registered(room: Room) -> None:
    room.leases.register("w1", model="m", slots=4)
    room.queue.enqueue(a_job())
    claimed(room, "w1")
    reap_until(room, 1)
    orders = room.leases.renew("w1", WorkerInfo(name="w1", model="m"))
    assert not orders.registered
    assert orders.jobs == frozenset()


def test_a_zombie_is_fenced(room: Room) -> None:
    zombie, heir = room.worker("zombie"), room.worker("heir")
    room.queue.enqueue(a_job())
    claimed(room, zombie)
    room.log.append([token("j1", 1, 1)], worker=zombie)
    room.patient.release(zombie, crashed=True)
    (refused,) = room.log.append([token("j1", 1, 2)], worker=zombie)
    assert (refused.ok, refused.reason) == (False, "fenced")
    assert claimed(room, heir).last_seq == 1
    (refused,) = room.log.append([token("j1", 1, 2)], worker=zombie)
    assert (refused.ok, refused.reason) == (False, "fenced")
    assert room.log.append([token("j1", 2, 2)], worker=heir)[0].ok
    assert [entry.epoch for entry in room.log.read("j1")] == [1, 2]


def test_the_same_epoch_of_another_worker_is_fenced(room: Room) -> None:
    """A Redis that lost its last second can give one epoch twice."""
    holder, other = room.worker("holder"), room.worker("other")
    room.queue.enqueue(a_job())
    claimed(room, holder)
    assert room.log.append([token("j1", 1, 1)], worker=other)[0].reason == "fenced"
    assert room.log.append([token("j1", 1, 1)], worker=holder)[0].ok


def test_a_drained_workers_jobs_go_on_without_suspicion(room: Room) -> None:
    leaver, heir = room.worker("leaver"), room.worker("heir")
    for job_id in "ab":
        room.queue.enqueue(a_job(job_id))
        claimed(room, leaver)
    room.log.append([token("a", 1, 1)], worker=leaver)
    assert sorted(room.patient.release(leaver, crashed=False)) == ["a", "b"]
    again = [claimed(room, heir) for _ in "ab"]
    assert [(claim.job.id, claim.job.epoch, claim.suspect) for claim in again] == [
        ("a", 2, False),
        ("b", 2, False),
    ]
    room.patient.drop("leaver")
    assert [worker.name for worker in room.leases.workers()] == ["heir"]


def test_suspects_prove_themselves_one_at_a_time(room: Room) -> None:
    dead, heir, other = room.worker("dead"), room.worker("heir"), room.worker("other")
    for job_id in "abc":
        room.queue.enqueue(a_job(job_id))
    for _ in "abc":
        claimed(room, dead)
    room.patient.release(dead, crashed=True)
    room.queue.enqueue(a_job("fresh"))
    assert claimed(room, heir).job.id == "a"
    assert room.queue.claim("m", heir) is None, "it admits nothing beside an unproven suspect"
    assert claimed(room, other).suspect
    room.log.append([Append("a", 2, 1, [Started(worker=heir)])], worker=heir)
    assert room.queue.claim("m", heir) is None, "a start is no progress"
    assert room.log.append([token("a", 2, 2)], worker=heir)[0].proved
    assert not room.log.append([token("a", 2, 3)], worker=heir)[0].proved
    assert claimed(room, heir)


def test_two_crashes_without_progress_end_a_job(room: Room) -> None:
    room.queue.enqueue(a_job())
    for number in range(2):
        worker = room.worker(f"w{number}")
        claimed(room, worker)
        assert room.patient.release(worker, crashed=True) == ["j1"]
    (entry,) = room.log.read("j1")
    assert isinstance(entry.event, Failed)
    assert entry.event.code == "worker_lost"
    assert entry.event.usage == Usage(prompt_tokens=3)
    assert room.log.ended() == ["j1"]
    assert room.queue.claim("m", room.worker("w3")) is None


def test_progress_between_crashes_keeps_a_job_alive(room: Room) -> None:
    room.queue.enqueue(a_job())
    for number in range(6):
        worker = room.worker(f"w{number}")
        claim = claimed(room, worker)
        if number % 2 == 0:
            item = token("j1", claim.job.epoch, claim.last_seq + 1)
            assert room.log.append([item], worker=worker)[0].ok
            room.patient.release(worker, crashed=True)
        else:
            room.patient.release(worker, crashed=False)
    state = room.queue.state("j1")
    assert state is not None
    assert (state.state, state.crashes, state.tokens) == ("queued", 3, 3)


def test_registering_a_name_again_hands_the_old_process_jobs_back(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    claimed(room, worker)
    assert room.patient.register(worker, model="m", slots=1) == ["j1"]
    assert claimed(room, worker).suspect


def test_some_jobs_can_be_handed_back_alone(room: Room) -> None:
    worker, other = room.worker(), room.worker("other")
    for job_id in "ab":
        room.queue.enqueue(a_job(job_id))
        claimed(room, worker)
    assert room.patient.release(other, crashed=False, jobs=["a"]) == []
    assert room.patient.release(worker, crashed=False, jobs=["a"]) == ["a"]
    info = WorkerInfo(name=worker, model="m")
    assert room.patient.renew(worker, info).jobs == {"b"}


def test_a_finished_job_frees_its_workers_hold(room: Room) -> None:
    worker = room.worker()
    room.queue.enqueue(a_job())
    claimed(room, worker)
    end = Finished(reason="stop", usage=Usage(prompt_tokens=3))
    room.log.append([Append("j1", 1, 1, [end])], worker=worker)
    assert room.patient.renew(worker, WorkerInfo(name=worker, model="m")).jobs == frozenset()
    assert room.patient.release(worker, crashed=True) == []


def test_orders_and_information_travel(room: Room) -> None:
    worker = room.worker()
    room.leases.request_drain(worker)
    info = WorkerInfo(name=worker, model="m", state="ready", running=3, tokens_per_second=12.5)
    orders = room.patient.renew(worker, info)
    assert (orders.drain, orders.paused) == (True, False)
    assert orders.server
    (seen,) = room.leases.workers()
    assert seen == info.model_copy(update={"state": "draining"})


def test_loading_is_told_and_forgotten(room: Room) -> None:
    room.leases.set_loading("m", 0.25, "reading weights")
    loading = room.leases.loading("m")
    assert loading is not None
    assert (loading.fraction, loading.message) == (0.25, "reading weights")
    time.sleep(0.35)
    assert room.leases.loading("m") is None
