"""R9: stop stops the compute, in every phase."""

from __future__ import annotations

import random
import time
from functools import partial

from inference_workers.contract import Cancelled, Job
from inference_workers.queue import WorkerInfo
from tests.faults.house import House, a_house, until
from tests.faults.report import Row, sound

PHASES = ("queued", "prefill", "decode", "at once")
STEP = 0.02


def cancelled_jobs(*, doses: int, seed: int) -> Row:
    """Cancel in every phase; then nothing runs, nothing is held, nothing waits."""
    rng = random.Random(seed)
    row = Row("R9", f"{doses} cancels in every phase", seed)
    jobs: list[Job] = []
    delays: list[float] = []
    with a_house(lease=6.0, step=STEP, chunk=64) as house:
        name = house.worker(slots=4)
        while len(jobs) < doses:
            batch = [house.job(rng, tokens=1000) for _ in range(min(8, doses - len(jobs)))]
            jobs += batch
            house.submit(*batch)
            for job in rng.sample(batch, len(batch)):
                _await(house, job.id, rng.choice(PHASES))
                begin = time.monotonic()
                result = house.queue.cancel(job.id)
                row.check(result in ("removed", "flagged"), f"{job.id}: cancel said {result}")
                until(partial(_ended, house, job.id), 10, "it ends")
                delays.append(time.monotonic() - begin)
        info = _settled(house, name)
        row.check(info.running == 0, f"{info.running} still run")
        row.check(info.blocks_used == 0, f"{info.blocks_used} blocks leaked")
        held = house.redis.scard(house.queue.keys.worker_jobs(name))
        row.check(held == 0, f"the worker still holds {held}")
        row.check(house.queue.depth(info.model) == 0, "something is still queued")
        for job in jobs:
            entries = house.reader.jobs[job.id].entries
            row.check(isinstance(entries[-1].event, Cancelled), f"{job.id}: {entries[-1].event!r}")
            sound(row, job, entries)
    delays.sort()
    p95 = delays[int(0.95 * (len(delays) - 1))]
    row.check(p95 <= 0.5, f"a cancel takes {p95:.2f} s (p95)")
    row.figures = f"from cancel to end p95 {1000 * p95:.0f} ms at {1000 * STEP:.0f} ms a step"
    return row


def _ended(house: House, job_id: str) -> bool:
    return house.reader.jobs[job_id].ended


def _await(house: House, job_id: str, phase: str) -> None:
    """Wait a little for the job to be in ``phase``; it may be queued for long behind others."""
    end = time.monotonic() + 0.3
    while phase != "at once" and time.monotonic() < end:
        state = house.queue.state(job_id)
        entries = len(house.reader.jobs[job_id].entries)
        if state and state.state == "queued" and phase == "queued":
            return
        if state and state.state == "running" and (entries <= 1) == (phase == "prefill"):
            return
        time.sleep(0.005)


def _settled(house: House, name: str) -> WorkerInfo:
    """What the worker says about itself two beats later."""
    time.sleep(2.2)
    return house.ready(name)
