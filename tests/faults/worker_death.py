"""R1, R1b, R2, R3, R6: workers that are killed, poisoned, frozen, not there, or replaced."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from functools import partial

from inference_workers.contract import Delta, Failed, Job
from inference_workers.queue import LEASE_SECONDS
from tests.faults.house import House, a_house, until
from tests.faults.report import Row, judge, sound
from tests.faults.small_model import explains, small_llama

PHASES = ("queued", "prefill", "decode", "inside a character", "last token")


def killed_workers(
    *, doses: int, streams: int, seed: int, lease: float = 2.0, small_model: bool = False
) -> Row:
    """R1: kill -9 at random phases under ``streams`` streams on two workers, with the echo model or
    with a small float32 model on the torch engine.

    Two workers hold no more than all streams, so the dead one's need its replacement. With the
    product's lease that is ready before the death is seen; with a shorter one its start counts.
    """
    rng = random.Random(seed)
    what = "a small float32 model" if small_model else "the echo model"
    row = Row("R1", f"{doses} kills, {streams} streams, {what}", seed)
    prepare = small_llama if small_model else None
    jobs: list[Job] = []
    phases: list[str] = []
    starts: list[float] = []
    with a_house(lease=lease, step=0.02, prepare=prepare) as house:
        slots = max(4, streams // 2 - 1)
        for _ in range(2):
            house.worker(slots=slots)
        for _ in range(doses):
            _fill(house, rng, jobs, streams, longest=600 if small_model else 200)
            phase = rng.choice(PHASES)
            victim = _worker_in(house, phase, rng)
            phases.append(phase)
            house.signal(victim, signal.SIGKILL)
            begin = time.monotonic()
            house.worker(slots=slots)
            starts.append(time.monotonic() - begin)
            recovered(house)
            time.sleep(rng.uniform(0, 0.3))
        until(lambda: not house.reader.open(), 120, "every stream ends")
        model = house.folder / "model"
        rounded = judge(
            house, row, jobs, explains=partial(explains, model) if small_model else None
        )
        gaps = sorted(house.reader.jobs[job.id].longest_gap() for job in jobs)
        taken = sum(house.reader.jobs[job.id].entries[-1].epoch > 1 for job in jobs)
    p95 = gaps[int(0.95 * (len(gaps) - 1))]
    beyond = max(0.0, p95 - (lease if lease >= LEASE_SECONDS else max(lease, *starts)))
    row.check(taken > 0, "no job was taken over")
    row.check(len(rounded) <= 1 + len(jobs) // 200, f"{len(rounded)} jobs differ by rounding")
    row.check(beyond <= 3.0, f"gap p95 is {beyond:.2f} s beyond detection")
    row.figures = (
        f"{len(jobs)} jobs, {taken} taken over, gap p95 {p95:.2f} s with a lease of "
        f"{lease:g} s and starts up to {max(starts):.2f} s: {beyond:.2f} s beyond; "
        f"{len(rounded)} differ where float32 can't tell two tokens apart; "
        f"{', '.join(phases)}"
    )
    return row


def _fill(
    house: House, rng: random.Random, jobs: list[Job], streams: int, *, longest: int = 200
) -> None:
    while len(house.reader.open()) < streams:
        job = house.job(rng, tokens=rng.randint(60, longest))
        jobs.append(job)
        house.submit(job)


def _worker_in(house: House, phase: str, rng: random.Random) -> str:
    """A worker that has a job in ``phase`` right now; any live one when none gets there."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        open_jobs = house.reader.open()
        rng.shuffle(open_jobs)
        for job_id in open_jobs:
            state = house.queue.state(job_id)
            if state is None:
                continue
            if phase == "queued" and state.state == "queued":
                return rng.choice(house.alive())
            if state.worker in house.alive() and _is_in(house, job_id, phase):
                return state.worker
    return rng.choice(house.alive())


def _is_in(house: House, job_id: str, phase: str) -> bool:
    entries = house.log.read(job_id)
    if phase == "prefill":
        return len(entries) == 1
    last = entries[-1].event if entries else None
    if not isinstance(last, Delta) or last.finish:
        return False
    if phase == "inside a character":
        return last.text == ""
    return phase == "decode" or len(entries) > 55


def recovered(house: House) -> None:
    """Every stream has a new token since the kill. A start is not enough: two deaths without a
    token in between would end the job, as they should."""
    before = {i: house.reader.jobs[i].tokens for i in house.reader.open()}
    until(
        lambda: all(
            house.reader.jobs[i].tokens > made
            for i, made in before.items()
            if not house.reader.jobs[i].ended
        ),
        120,
        "every stream goes on",
    )


def poison(*, batch: int, seed: int) -> Row:
    """R1b: a request that kills its process, in a batch on one worker that is started again."""
    rng = random.Random(seed)
    row = Row("R1b", f"1 poisonous request in a batch of {batch}", seed)
    with a_house(lease=1.0, step=0.02) as house:
        jobs = [house.job(rng, tokens=rng.randint(30, 90)) for _ in range(batch)]
        bad = house.job(rng, tokens=20, prompt="a \0POISON b")
        at = rng.randrange(batch)
        house.worker(slots=batch)
        house.submit(*jobs[:at], bad, *jobs[at + 1 :])
        deaths = 0
        end = time.monotonic() + 60
        while house.reader.open() and time.monotonic() < end:
            if not house.alive():
                deaths += 1
                # What a local supervisor does: report the death at once, start again.
                house.leases.release(list(house.workers)[-1], crashed=True)
                house.worker(slots=batch, wait=False)
            time.sleep(0.01)
        row.check(not house.reader.open(), f"{len(house.reader.open())} jobs have no end")
        entries = house.reader.jobs[bad.id].entries
        last = entries[-1].event if entries else None
        row.check(isinstance(last, Failed) and last.code == "worker_lost", f"it ended as {last!r}")
        sound(row, bad, entries)
        judge(house, row, jobs[:at] + jobs[at + 1 :])
    row.check(deaths == 2, f"{deaths} workers died")
    row.figures = f"{deaths} deaths, then worker_lost; {batch - 1} others identical"
    return row


def frozen_worker(*, doses: int, seed: int, lease: float = 2.0) -> Row:
    """R2: SIGSTOP for longer than a lease, then SIGCONT while most of its jobs wait for an heir:
    only the fence keeps the zombie's next entries out of their logs."""
    rng = random.Random(seed)
    row = Row("R2", f"{doses} workers frozen for longer than a lease", seed)
    jobs: list[Job] = []
    stale = 0
    with a_house(lease=lease) as house:
        victim = house.worker(slots=8)
        for _ in range(doses):
            heir = house.worker(slots=2)
            house.leases.set_paused(heir, True)
            batch = [house.job(rng, tokens=rng.randint(100, 200)) for _ in range(8)]
            jobs += batch
            house.submit(*batch)
            until(partial(_all_in_decode, house, batch), 20, "all jobs run")
            house.signal(victim, signal.SIGSTOP)
            house.leases.set_paused(heir, False)
            until(partial(_taken_away, house, batch, victim), 30, "its jobs are taken away")
            before = {job.id: _epochs(house, job.id) for job in batch}
            house.signal(victim, signal.SIGCONT)
            until(lambda: not house.reader.open(), 60, "every stream ends")
            for job_id, epochs in before.items():
                found = _epochs(house, job_id)
                stale += sum(max(0, found[e] - epochs[e]) for e in epochs if e == min(epochs))
            house.ready(victim)
            house.signal(heir, signal.SIGKILL)
        judge(house, row, jobs)
        takeovers = sum(house.reader.jobs[job.id].entries[-1].epoch > 1 for job in jobs)
    row.check(takeovers > 0, "nothing was taken over")
    row.check(stale == 0, f"{stale} stale entries")
    row.figures = f"{takeovers} of {len(jobs)} jobs taken over, {stale} stale entries"
    return row


def _all_in_decode(house: House, jobs: list[Job]) -> bool:
    return all(len(house.reader.jobs[job.id].entries) > 3 for job in jobs)


def _taken_away(house: House, jobs: list[Job], old: str) -> bool:
    states = [house.queue.state(job.id) for job in jobs]
    return all(state and (state.state == "ended" or state.worker != old) for state in states)


def _epochs(house: House, job_id: str) -> Counter[int]:
    """How many entries each epoch wrote."""
    return Counter(entry.epoch for entry in house.log.read(job_id))


def lost_before_start(*, doses: int, seed: int) -> Row:
    """R3: a worker stops, jobs are submitted, the worker is killed, another one starts."""
    rng = random.Random(seed)
    row = Row("R3", f"{doses} times submitted to a stopped worker", seed)
    jobs: list[Job] = []
    latest = 0.0
    with a_house(lease=1.0) as house:
        for _ in range(doses):
            name = house.worker()
            house.signal(name, signal.SIGSTOP)
            batch = [house.job(rng, tokens=20) for _ in range(10)]
            jobs += batch
            house.submit(*batch)
            house.signal(name, signal.SIGKILL)
            house.ready(house.worker(wait=False))
            ready = time.monotonic()
            until(lambda: not house.reader.open(), 30, "every job ends")
            starts = [house.reader.jobs[job.id].times[0] - ready for job in batch]
            latest = max(latest, *starts)
            for other in house.alive():
                house.signal(other, signal.SIGKILL)
        judge(house, row, jobs)
    row.check(latest <= 3.0, f"one started {latest:.2f} s after a worker was ready")
    row.figures = f"{len(jobs)} jobs, all run; the last began {latest:.2f} s after ready"
    return row


def rolling_restart(*, doses: int, streams: int, seed: int) -> Row:
    """R6: SIGTERM to one worker after the other, each replaced first, under load."""
    rng = random.Random(seed)
    row = Row("R6", f"{doses} rolling restarts, {streams} streams, two workers", seed)
    jobs: list[Job] = []
    drains: list[float] = []
    with a_house(lease=6.0) as house:
        old = [house.worker() for _ in range(2)]
        for _ in range(doses):
            _fill(house, rng, jobs, streams)
            until(partial(_some_in_decode, house), 20, "jobs run")
            new = house.worker()
            victim = old.pop(0)
            begin = time.monotonic()
            house.signal(victim, signal.SIGTERM)
            code = house.workers[victim].wait(40)
            drains.append(time.monotonic() - begin)
            row.check(code == 0, f"{victim} ended with {code}")
            old.append(new)
        until(lambda: not house.reader.open(), 120, "every stream ends")
        judge(house, row, jobs)
        gaps = sorted(house.reader.jobs[job.id].longest_gap() for job in jobs)
        crashes = [state.crashes for job in jobs if (state := house.queue.state(job.id))]
    row.check(max(drains) <= 30, f"a drain took {max(drains):.1f} s")
    row.check(not any(crashes), "a drained worker's job counts as crashed")
    row.figures = (
        f"{len(jobs)} jobs, 0 failed; drain {max(drains):.2f} s; longest gap {gaps[-1]:.2f} s"
    )
    return row


def _some_in_decode(house: House) -> bool:
    jobs = [house.reader.jobs[job_id] for job_id in house.reader.open()]
    return sum(len(job.entries) > 5 for job in jobs) >= len(jobs) // 2
