"""What the runtime asks of an engine. The torch engine, the encoder and the echo engine keep it.

Every method is called from one thread: the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inference_workers.contract import Cancelled, Failed, Finished, Job, Made

EngineEvent = Made | Finished | Failed | Cancelled


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot for the operators' page. Counters grow from the engine's start."""

    running: int = 0
    waiting: int = 0
    slots: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    prefix_hits: int = 0
    prefix_lookups: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0


class Engine(Protocol):
    """Runs requests together, one step at a time."""

    def capacity(self) -> int:
        """How many further jobs it would take now; 0 means: claim nothing."""
        ...

    def add(self, job: Job, logged: Sequence[Made] = ()) -> None:
        """Take a job. ``logged`` is what earlier epochs made: it goes on after that.

        Raises:
            RequestError: the job can never run here; nothing of it is kept.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """The next step emits ``Cancelled`` for it. An unknown id does nothing."""
        ...

    def remove(self, job_id: str) -> None:
        """Drop it without an event and free its blocks: it was handed over or fenced."""
        ...

    def step(self) -> list[tuple[str, EngineEvent]]:
        """Schedule, run, sample, emit: ``(job id, event)``, a job's events in order."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def stats(self) -> EngineStats: ...
