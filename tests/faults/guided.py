"""R16: workers are killed inside JSON answers."""

from __future__ import annotations

import json
import random
import signal

import jsonschema

from inference_workers.contract import Delta, Entry, Finished, Guide, Job, Sampling
from tests.faults.house import House, a_house, until
from tests.faults.report import Row, judge
from tests.faults.small_model import small_llama
from tests.faults.worker_death import recovered

ORDER = {
    "type": "object",
    "properties": {
        "dish": {"type": "string", "minLength": 8, "maxLength": 16},
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
        "with": {
            "type": "array",
            "items": {"enum": ["米饭", "thé", "🙂"]},
            "minItems": 1,
            "maxItems": 4,
        },
        "note": {"type": ["string", "null"], "maxLength": 12},
    },
    "required": ["dish", "count", "with", "note"],
    "additionalProperties": False,
}
TOKENS = 400


def killed_inside_json(*, doses: int, streams: int, seed: int, lease: float = 2.0) -> Row:
    """R16: kill -9 of the worker that has most guided answers half-written, again and again, with a
    small float32 model on the torch engine."""
    rng = random.Random(seed)
    row = Row("R16", f"{doses} kills inside JSON, {streams} streams", seed)
    jobs: list[Job] = []
    inside = 0
    with a_house(lease=lease, prepare=small_llama) as house:
        slots = max(4, streams // 2)
        for _ in range(2):
            house.worker(slots=slots)
        for _ in range(doses):
            _fill(house, rng, jobs, streams)
            until(lambda: _half_written(house), 60, "an answer is half-written")
            victim, count = max(_half_written(house).items(), key=lambda found: found[1])
            inside += count
            house.signal(victim, signal.SIGKILL)
            house.worker(slots=slots)
            recovered(house)
        until(lambda: not house.reader.open(), 120, "every stream ends")
        judge(house, row, jobs)
        followed = [house.reader.jobs[job.id].entries for job in jobs]
    taken = sum(entries[-1].epoch > 1 for entries in followed)
    valid = sum(_valid(row, entries) for entries in followed)
    row.check(inside > 0 and taken > 0, f"{inside} answers were cut, {taken} taken over")
    row.check(valid > len(jobs) // 2, f"only {valid} of {len(jobs)} answers came to their end")
    row.figures = (
        f"{len(jobs)} answers, {inside} cut inside JSON, {taken} taken over, {valid} valid"
    )
    return row


def _fill(house: House, rng: random.Random, jobs: list[Job], streams: int) -> None:
    guide = Guide(kind="json_schema", text=json.dumps(ORDER))
    while len(house.reader.open()) < streams:
        plain = house.job(rng, tokens=TOKENS, prompt=f"order {rng.random()}: ")
        temperature = rng.choice([0.0, 1.0])
        sampling = Sampling(max_tokens=TOKENS, temperature=temperature, guide=guide)
        jobs.append(plain.model_copy(update={"sampling": sampling}))
        house.submit(jobs[-1])


def _half_written(house: House) -> dict[str, int]:
    """How many answers each worker is in the middle of."""
    counts: dict[str, int] = {}
    for job_id in house.reader.open():
        state = house.queue.state(job_id)
        if house.reader.jobs[job_id].tokens > 3 and state and state.worker in house.alive():
            counts[state.worker] = counts.get(state.worker, 0) + 1
    return counts


def _valid(row: Row, entries: list[Entry]) -> bool:
    """Whether the answer ended by itself; what it then says must match."""
    end = entries[-1].event
    if not isinstance(end, Finished) or end.reason != "stop":
        row.check(isinstance(end, Finished), f"it ended as {end!r}")
        return False
    text = "".join(entry.event.text for entry in entries if isinstance(entry.event, Delta))
    try:
        jsonschema.validate(json.loads(text), ORDER)
    except (ValueError, jsonschema.ValidationError) as error:
        row.check(False, f"{text!r} does not match: {error}")
    return True
