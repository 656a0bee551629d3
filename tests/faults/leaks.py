"""R17: many jobs leave nothing behind in the worker or in Redis."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from inference_workers.sink import KEEP_SECONDS
from tests.faults.house import House, a_house, until
from tests.faults.report import Row

WAVE = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    memory: int
    files: int
    threads: int
    keys: int


def many_jobs(*, doses: int, seed: int) -> Row:
    """``doses`` short jobs, a quarter of them cancelled, each recorded as the keeper does."""
    rng = random.Random(seed)
    row = Row("R17", f"{doses} jobs", seed)
    with a_house(step=0.0) as house:
        name = house.worker(slots=WAVE)
        _run(house, rng, min(doses, 5_000))  # as much is kept at once as later
        before = _sizes(house, name)
        _run(house, rng, doses)
        after = _sizes(house, name)
    grown = (after.memory - before.memory) / doses
    row.check(grown < 500, f"the worker's memory grew by {grown:.0f} bytes a job")
    row.check(after.files <= before.files + 2, f"{before.files} open files became {after.files}")
    row.check(after.threads <= before.threads, f"{before.threads} threads became {after.threads}")
    row.check(after.keys <= before.keys + 2, f"{before.keys} keys became {after.keys}")
    row.figures = (
        f"{grown:.0f} bytes a job, {after.files} files, {after.threads} threads, {after.keys} keys"
    )
    return row


def _run(house: House, rng: random.Random, count: int) -> None:
    for _ in range(count // WAVE + 1):
        jobs = [house.job(rng, tokens=rng.randint(1, 40)) for _ in range(WAVE)]
        house.submit(*jobs)
        for job in rng.sample(jobs, WAVE // 4):
            house.queue.cancel(job.id)
        until(lambda: not house.reader.open(), 60, "a wave ends")
        for job_id in house.log.ended(2 * WAVE):
            house.log.recorded(job_id, 1)
        house.reader.jobs.clear()


def _sizes(house: House, name: str) -> Sizes:
    """Once everything that is kept for a while has gone."""
    time.sleep(KEEP_SECONDS + 1)
    process = Path("/proc") / str(house.workers[name].pid)
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    return Sizes(
        memory=int(status["VmRSS"].split()[0]) * 1024,
        files=len(list((process / "fd").iterdir())),
        threads=int(status["Threads"]),
        keys=int(house.redis.dbsize()),
    )
