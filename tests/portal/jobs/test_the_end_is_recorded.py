"""The keeper: each end once, whatever dies in between; what got lost comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from inference_workers.contract import Cancelled, Failed
from inference_workers.queue import FairQueue, JobLog, connect
from portal.jobs import dispatch, keeper, links, selectors
from portal.jobs.keeper import Keeper, record
from portal.jobs.models import Job
from portal.jobs.services import cancel_job
from portal.usage.models import Reservation, UsageHour
from tests.environment import Valkey
from tests.portal.jobs.conftest import Worker

Make = Callable[..., Job]


@pytest.fixture
def the_keeper(redis: object) -> Keeper:
    return Keeper()


def age(job: Job, seconds: float = 5) -> None:
    Job.objects.filter(pk=job.pk).update(queued_at=timezone.now() - timedelta(seconds=seconds))


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_ended_log_becomes_the_rows_end(
    make_job: Make, worker: Worker, the_keeper: Keeper
) -> None:
    job = make_job("hello")
    worker.answer("a", "", "b")
    logged = links.log().read(job.pk.hex)
    assert the_keeper.collect() == 1
    job.refresh_from_db()
    assert (job.state, job.reason) == ("finished", "stop")
    assert (job.prompt_tokens, job.completion_tokens) == (len(job.input_ids), 3)
    assert [e.event for e in selectors.entries(job)] == [e.event for e in logged]
    assert selectors.said(job).text == "ab"
    times = [job.claimed_at, job.first_token_at, job.last_token_at, job.recorded_at]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    hour = UsageHour.objects.get()
    assert (hour.jobs, hour.prompt_tokens, hour.completion_tokens) == (1, len(job.input_ids), 3)
    assert not Reservation.objects.exists()
    assert links.log().ended() == []
    assert 0 < links.client().ttl(links.log().keys.log(job.pk.hex)) <= 600


STEPS = ["state", "archive.pack", "settle", "commit", "recorded"]


@pytest.mark.parametrize("step", STEPS)
def test_a_keeper_that_dies_at_any_step_bills_once(
    make_job: Make, worker: Worker, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Die before each step; then a new keeper does it, and one more finds nothing to do."""
    job = make_job("hello")
    worker.answer("a", "b")

    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        if step == "state":
            patch.setattr(FairQueue, "state", die)
        elif step == "archive.pack":
            patch.setattr(keeper.archive, "pack", die)
        elif step == "settle":
            patch.setattr(keeper, "settle", die)
        elif step == "commit":
            patch.setattr(keeper, "_count", die)
        else:
            patch.setattr(JobLog, "recorded", die)
        with pytest.raises(Died):
            record(job.pk.hex, log=links.log(), queue=links.queue())
    job.refresh_from_db()
    assert (job.state == "open") == (step in STEPS[:3])
    assert Reservation.objects.exists() == (step in STEPS[:3])
    for _ in range(2):
        Keeper().collect()
    job.refresh_from_db()
    assert job.state == "finished"
    assert UsageHour.objects.get().completion_tokens == 2
    assert UsageHour.objects.get().jobs == 1
    assert not Reservation.objects.exists()
    assert links.log().ended() == []


def test_two_keepers_at_once_record_once(make_job: Make, worker: Worker) -> None:
    jobs = [make_job(f"hello {i}") for i in range(5)]
    for _ in jobs:
        worker.made = 0
        worker.answer("a")
    done: list[int] = []

    def collect() -> None:
        try:
            done.append(Keeper().collect())
        finally:
            connection.close()

    threads = [threading.Thread(target=collect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 5
    assert UsageHour.objects.get().jobs == 5


def test_the_prompt_is_billed_once_however_many_workers_died(
    make_job: Make, worker: Worker, the_keeper: Keeper
) -> None:
    job = make_job("hello")
    worker.claim()
    worker.say("a")
    worker.leases.release("w", crashed=True)
    assert worker.claim().epoch == 2
    worker.say("b")
    worker.finish()
    the_keeper.collect()
    job.refresh_from_db()
    assert (job.prompt_tokens, job.completion_tokens) == (len(job.input_ids), 2)
    assert selectors.said(job).text == "ab"


def test_a_queued_job_that_is_cancelled_costs_nothing(make_job: Make, the_keeper: Keeper) -> None:
    job = make_job()
    assert cancel_job(job=job) == "removed"
    the_keeper.collect()
    job.refresh_from_db()
    assert (job.state, job.completion_tokens, job.prompt_tokens) == ("cancelled", 0, 0)
    assert isinstance(selectors.entries(job)[-1].event, Cancelled)
    assert not Reservation.objects.exists()
    assert cancel_job(job=job) == "unknown"


def test_a_lost_dispatch_is_found(
    make_job: Make, the_keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "send", lambda job: False)
        job = make_job()
    the_keeper.sweep()
    assert links.queue().position(job.pk.hex) is None  # young: may be on its way
    age(job)
    the_keeper.sweep()
    assert links.queue().position(job.pk.hex) == 1


def test_after_a_loss_of_all_data_jobs_run_again_and_old_runs_are_fenced(
    make_job: Make, worker: Worker, the_keeper: Keeper
) -> None:
    running, queued = make_job("one"), make_job("two")
    old = worker.claim()
    worker.say("a")
    links.client().flushall()
    age(running, 6)
    age(queued, 5)
    the_keeper.sweep()
    queue = links.queue()
    assert queue.position(running.pk.hex) == 1
    assert queue.position(queued.pk.hex) == 2
    state = queue.state(running.pk.hex)
    assert state is not None
    assert state.epoch > old.epoch
    the_keeper.sweep()
    assert queue.depth("echo") == 2
    for _ in range(2):
        worker.made = 0
        worker.answer("a", "b")
    the_keeper.collect()
    assert set(Job.objects.values_list("state", flat=True)) == {"finished"}
    assert UsageHour.objects.get().completion_tokens == 4


def test_a_queued_job_past_its_deadline_ends_and_says_so(
    make_job: Make, the_keeper: Keeper
) -> None:
    job = make_job(deadline=time.time() + 0.05)
    time.sleep(0.1)
    the_keeper.sweep()
    the_keeper.sweep()
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("failed", "deadline_exceeded")
    assert not Reservation.objects.exists()


def test_a_job_that_no_worker_ends_is_ended_for_it(
    make_job: Make, worker: Worker, the_keeper: Keeper
) -> None:
    job = make_job("hello")
    worker.claim()
    worker.say("a", "b")
    age(job)
    Job.objects.filter(pk=job.pk).update(deadline=time.time() - 100)
    the_keeper.sweep()
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("failed", "deadline_exceeded")
    assert (job.prompt_tokens, job.completion_tokens) == (len(job.input_ids), 2)
    assert selectors.said(job).text == "ab"
    assert isinstance(selectors.entries(job)[-1].event, Failed)


def test_one_log_that_cannot_be_read_does_not_stand_in_the_others_way(
    make_job: Make, worker: Worker, the_keeper: Keeper
) -> None:
    bad, good = make_job("bad"), make_job("good")
    worker.answer("a")
    worker.made = 0
    worker.answer("b")
    links.client().delete(links.log().keys.log(bad.pk.hex))
    links.client().xadd(links.log().keys.log(bad.pk.hex), {"p": "1", "e": "{broken"}, id="1-0")
    the_keeper.collect()
    good.refresh_from_db()
    assert good.state == "finished"


@pytest.fixture
def running_keeper(redis: object, transactional_db: None) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Keeper().run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join(10)


def test_an_end_is_recorded_within_a_moment(
    make_job: Make, worker: Worker, running_keeper: None
) -> None:
    job = make_job()
    time.sleep(0.2)
    worker.answer("a")
    began = time.monotonic()
    until(lambda: Job.objects.get(pk=job.pk).state == "finished")
    assert time.monotonic() - began < 0.9


def test_the_keeper_outlives_an_outage_of_redis(
    make_job: Make, valkey: Valkey, running_keeper: None, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job()
    age(job)
    valkey.stop()
    time.sleep(2.5)
    valkey.start()
    client = connect(valkey.url)
    until(lambda: FairQueue(client).position(job.pk.hex) == 1)
    assert caplog.text.count("keeper_waits") <= 2
