"""What a fault run found: judged against an undisturbed run, and printed as a table's row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from inference_workers.contract import (
    Cancelled,
    Delta,
    Entry,
    Failed,
    Finished,
    Job,
    Started,
    Usage,
)
from tests.faults.house import House


@dataclass(slots=True)
class Row:
    """One promise under one fault. It is kept when ``failures`` is empty."""

    promise: str
    dose: str
    seed: int
    figures: str = ""
    failures: list[str] = field(default_factory=list)

    def check(self, fine: bool, otherwise: str) -> None:
        if not fine:
            self.failures.append(otherwise)

    def __str__(self) -> str:
        verdict = "kept" if not self.failures else "BROKEN"
        line = f"{self.promise:<5} {verdict:<7} {self.dose:<42} {self.figures}  (seed {self.seed})"
        return "\n".join([line, *(f"        {failure}" for failure in self.failures[:10])])


Explains = Callable[[Job, Sequence[int]], bool]


def judge(
    house: House, row: Row, jobs: Iterable[Job], *, explains: Explains | None = None
) -> list[str]:
    """Every log is what it would have been: nothing lost, repeated, changed or billed twice.

    Where ``explains`` finds that rounding alone made another token, the rest is judged by it; these
    jobs are the answer.
    """
    row.failures += house.reader.errors
    rounded: list[str] = []
    for job in jobs:
        entries = house.reader.jobs[job.id].entries
        wanted = said(house.undisturbed(job))
        if said(entries) != wanted and explains is not None and explains(job, tokens_of(entries)):
            rounded.append(job.id)
        else:
            row.check(said(entries) == wanted, f"{job.id}: {difference(said(entries), wanted)}")
        sound(row, job, entries)
    return rounded


def tokens_of(entries: Sequence[Entry]) -> list[int]:
    """A job's tokens, of its one choice."""
    deltas = [entry.event for entry in entries if isinstance(entry.event, Delta)]
    return [token for delta in deltas for token in delta.token_ids]


def sound(row: Row, job: Job, entries: Sequence[Entry]) -> None:
    """What holds for every log, however its job ended."""
    epochs = [entry.epoch for entry in entries]
    row.check(epochs == sorted(epochs), f"{job.id}: a stale epoch wrote, {epochs}")
    ends = [entry for entry in entries if entry.terminal]
    row.check(len(ends) == 1 and entries[-1].terminal, f"{job.id}: {len(ends)} terminal entries")
    usage = usage_of(entries)
    tokens = len(tokens_of(entries))
    row.check(
        usage.completion_tokens == tokens,
        f"{job.id}: billed {usage.completion_tokens} for {tokens}",
    )
    row.check(
        usage.prompt_tokens in (0, len(job.input_ids)), f"{job.id}: prompt billed wrongly: {usage}"
    )


def usage_of(entries: Sequence[Entry]) -> Usage:
    event = entries[-1].event if entries else None
    return event.usage if isinstance(event, Finished | Failed | Cancelled) else Usage()


def said(entries: Sequence[Entry]) -> list[tuple[int, object]]:
    """Numbers and events without the names of workers."""
    return [
        (entry.seq, "started" if isinstance(entry.event, Started) else entry.event)
        for entry in entries
    ]


def difference(found: Sequence[object], wanted: Sequence[object]) -> str:
    for index, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"entry {index + 1} is {one!r}, not {other!r}"
    return f"{len(found)} entries, not {len(wanted)}"
