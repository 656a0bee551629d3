"""A worker process: how it starts, hears, drains and ends."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from inference_workers.__main__ import main
from inference_workers.app import make_app
from inference_workers.contract import TASK_PULL, Finished, Job, wakeup_queue
from inference_workers.models.echo_folder import write_echo
from inference_workers.models.manifest import write_manifest
from tests.faults.house import MODEL, House, a_house, until

pytestmark = pytest.mark.slow


@pytest.fixture
def house() -> Iterator[House]:
    with a_house(lease=2.0, step=0.02) as house:
        yield house


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


def exit_code(house: House, name: str, timeout: float = 30.0) -> int:
    return house.workers[name].wait(timeout)


def running(house: House, job: Job) -> bool:
    return len(house.reader.jobs[job.id].entries) > 5


def finished(house: House, job: Job) -> bool:
    seen = house.reader.jobs[job.id]
    return seen.ended and isinstance(seen.entries[-1].event, Finished)


def test_sigterm_hands_unfinished_jobs_over_and_ends_with_zero(
    house: House, rng: random.Random
) -> None:
    name = house.worker()
    job = house.job(rng, tokens=400)
    house.submit(job)
    until(partial(running, house, job), 10, "it runs")
    begin = time.monotonic()
    house.signal(name, signal.SIGTERM)
    assert exit_code(house, name) == 0
    assert time.monotonic() - begin < 10
    assert house.leases.workers() == []
    state = house.queue.state(job.id)
    assert state is not None
    assert (state.state, state.epoch, state.crashes, state.suspect) == ("queued", 2, 0, False)
    # What the last step made was logged before the process ended.
    assert state.last_seq == len(house.log.read(job.id)) > 5
    house.worker()
    until(partial(finished, house, job), 20, "another one finishes it")


def test_an_operator_can_drain_a_worker(house: House) -> None:
    name = house.worker()
    house.leases.request_drain(name)
    assert exit_code(house, name) == 0
    assert house.leases.workers() == []


def test_a_claim_whose_answer_was_lost_is_given_back(house: House, rng: random.Random) -> None:
    name = house.worker()
    job = house.job(rng, tokens=5)
    # In its name, while it stands still: as if its own claim had lost its answer on the way.
    house.signal(name, signal.SIGSTOP)
    house.submit(job)
    claimed = house.queue.claim(MODEL, name)
    house.signal(name, signal.SIGCONT)
    assert claimed is not None
    until(partial(finished, house, job), 10, "it was given back and finished")
    assert house.reader.jobs[job.id].entries[-1].epoch == 2


def test_a_stalled_engine_loses_its_jobs_and_its_process(house: House, rng: random.Random) -> None:
    stalled = house.worker(LLMASOS_ECHO_STEP_S="60", LLMASOS_STALL_SECONDS="1")
    job = house.job(rng, tokens=20)
    house.submit(job)
    until(lambda: _running_on(house, job, stalled), 5, "it is claimed")
    house.worker()
    until(partial(finished, house, job), 20, "another one finishes it")
    assert exit_code(house, stalled) == 70


def _running_on(house: House, job: Job, name: str) -> bool:
    state = house.queue.state(job.id)
    return state is not None and state.worker == name


def test_a_celery_message_is_a_wake_up(house: House, rng: random.Random) -> None:
    # Celery would start Django where this is set.
    house.worker(DJANGO_SETTINGS_MODULE="nowhere.settings")
    app = make_app(house.valkey.url)
    job = house.job(rng, tokens=5)
    house.submit(job)
    app.send_task(TASK_PULL, queue=wakeup_queue(MODEL))
    until(partial(finished, house, job), 10, "it is served")
    until(lambda: house.redis.llen(wakeup_queue(MODEL)) == 0, 10, "the message is taken")
    # Early ack: nothing is left to be delivered again.
    until(lambda: house.redis.hlen("unacked") == 0, 5, "it is acknowledged")
    house.valkey.kill()
    house.valkey.start()
    app.send_task(TASK_PULL, queue=wakeup_queue(MODEL))
    until(lambda: house.redis.llen(wakeup_queue(MODEL)) == 0, 20, "messages are taken again")
    log = (house.folder / "w1.log").read_text()
    assert "Traceback" not in log


def test_a_lost_wake_up_delays_nobody(house: House, rng: random.Random) -> None:
    """It is heard while nothing may be claimed, and nobody says when that is over."""
    name = house.worker()
    house.leases.set_paused(name, True)
    job = house.job(rng, tokens=5)
    house.submit(job)
    wake = house.queue.keys.wake(MODEL)
    until(lambda: not house.redis.exists(wake), 10, "the wake-up is heard")
    time.sleep(0.5)  # the look that it caused is over
    house.leases.set_paused(name, False)
    until(partial(finished, house, job), 10, "a look finds it")


def test_its_log_is_json_with_job_ids(house: House, rng: random.Random) -> None:
    name = house.worker()
    job = house.job(rng, tokens=5)
    house.submit(job)
    until(partial(finished, house, job), 10, "it is served")
    lines = [json.loads(line) for line in (house.folder / f"{name}.log").read_text().splitlines()]
    events = {line["event"]: line for line in lines}
    assert events["job_ended"]["job"] == job.id
    assert events["job_ended"]["worker"] == name


def test_it_serves_metrics(house: House) -> None:
    port = 20000 + os.getpid() % 20000
    house.worker("--metrics-port", str(port))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'llmasos_worker_ready{model="echo",worker="w1"} 1.0' in text
    assert "llmasos_worker_generated_tokens_total" in text


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--slots", "0"], {}, "--slots"),
        (["--kv-memory", "much"], {}, "--kv-memory"),
        (["--path", "nowhere"], {}, "nowhere"),
        (["--model", "other"], {}, "other"),
        ([], {"REDIS_URL": "http://x"}, "REDIS_URL"),
        ([], {"REDIS_URL": ""}, "REDIS_URL"),
        ([], {"LLMASOS_LEASE_SECONDS": "soon"}, "LLMASOS_LEASE_SECONDS"),
        ([], {"LLMASOS_LOG_LEVEL": "loud"}, "LLMASOS_LOG_LEVEL"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    named: str,
) -> None:
    write_manifest(tmp_path, write_echo(tmp_path, model_id=MODEL, source="echo"))
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/redis.sock")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", "--model", MODEL, "--path", str(tmp_path), *arguments]) == 2
    assert named in json.loads(capsys.readouterr().err)["error"]["message"]
