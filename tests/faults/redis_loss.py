"""R4: Redis is killed with jobs in flight, and loses everything."""

from __future__ import annotations

import random
import time
from functools import partial

from inference_workers.contract import Job
from tests.faults.house import House, a_house, until
from tests.faults.report import Row, judge

EPOCHS_PER_LOSS = 1000


def killed_redis(*, doses: int, seed: int, lease: float = 2.0) -> Row:
    """kill -9 while jobs run and wait; it comes back with what it had a second ago, or so."""
    rng = random.Random(seed)
    row = Row("R4", f"{doses} times kill -9 of Redis, jobs in flight", seed)
    jobs: list[Job] = []
    slowest = 0.0
    with a_house(lease=lease) as house:
        for _ in range(2):
            house.worker(slots=6)
        for _ in range(doses):
            batch = [house.job(rng, tokens=rng.randint(60, 200)) for _ in range(16)]
            jobs += batch
            house.submit(*batch)
            until(partial(_some_run, house, batch), 10, "some jobs run")
            # Entries of the last second may be lost; the jobs themselves are on the disk.
            time.sleep(1.2 + rng.uniform(0, 0.5))
            house.valkey.kill()
            time.sleep(rng.choice([0.1, 0.5, lease + 1]))
            house.valkey.start()
            slowest = max(slowest, _back(house))
            until(lambda: not house.reader.open(), 60, "every stream ends")
        judge(house, row, jobs)
    row.check(slowest <= 10.0, f"service came back after {slowest:.1f} s")
    row.figures = f"{len(jobs)} jobs, all ended; first entry {slowest:.2f} s after the restart"
    return row


def flushed_redis(*, doses: int, seed: int, lease: float = 2.0) -> Row:
    """FLUSHALL while jobs run and wait; a stand-in for the keeper enqueues them from their rows."""
    rng = random.Random(seed)
    row = Row("R4b", f"{doses} times FLUSHALL, jobs in flight", seed)
    jobs: list[Job] = []
    slowest = 0.0
    with a_house(lease=lease) as house:
        for _ in range(2):
            house.worker(slots=6)
        for _ in range(doses):
            batch = [house.job(rng, tokens=rng.randint(60, 200)) for _ in range(16)]
            jobs += batch
            house.submit(*batch)
            until(partial(_some_run, house, batch), 10, "some jobs run")
            time.sleep(rng.uniform(0.2, 1.0))
            house.redis.flushall()
            for job in batch:
                if job.id in house.reader.open():
                    house.queue.enqueue(job.model_copy(update={"epoch": EPOCHS_PER_LOSS}))
            slowest = max(slowest, _back(house))
            until(lambda: not house.reader.open(), 60, "every stream ends")
        judge(house, row, jobs)
    row.check(slowest <= 10.0, f"service came back after {slowest:.1f} s")
    row.figures = f"{len(jobs)} jobs, all ended; first new entry after {slowest:.2f} s"
    return row


def _some_run(house: House, jobs: list[Job]) -> bool:
    return sum(len(house.reader.jobs[job.id].entries) > 10 for job in jobs) > 4


def _back(house: House) -> float:
    """Seconds until a reader sees something new."""
    begin = time.monotonic()
    seen = sum(len(job.entries) for job in list(house.reader.jobs.values()))
    until(
        lambda: sum(len(job.entries) for job in list(house.reader.jobs.values())) > seen,
        30,
        "a new entry comes",
    )
    return time.monotonic() - begin
