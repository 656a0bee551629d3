"""The encoder's engine: texts to vectors, several jobs together. Keeps ``protocol.Engine``.

There is no cache and nothing to sample. A step takes texts of the jobs in turn, up to a budget of
tokens, so that one with thousands of texts delays one with a single text by a step at most; of each
job the longest first, so that texts of like length are computed together. Cancels and deadlines
are heeded between steps.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from inference_workers.contract import (
    Cancelled,
    Embedded,
    Failed,
    Finished,
    Job,
    Made,
    Usage,
)
from inference_workers.engine.failures import NOT_FINITE, explained, hopeless
from inference_workers.engine.protocol import EngineEvent, EngineStats
from inference_workers.errors import RequestError
from inference_workers.models.base import Encoder
from inference_workers.native import set_threads

TOKEN_BUDGET = 1024
"""Tokens of a step: enough for the products to run at full speed, and about a tenth of a second
on two cores."""


@dataclass(slots=True, eq=False)
class _Work:
    """A job: ``waiting`` are its texts that have no vector yet, the longest first."""

    job: Job
    texts: list[tuple[int, ...]]
    waiting: deque[int]
    begun: bool = False
    cancelled: bool = False
    made: list[tuple[int, str]] = field(default_factory=list)
    """This step's vectors."""

    def usage(self) -> Usage:
        return Usage(prompt_tokens=len(self.job.input_ids))


class EncoderEngine:
    """Runs up to ``slots`` jobs together. ``context_length`` bounds each text, in tokens;
    ``token_budget`` those of a step, though one text is always taken; ``digest`` names the weights.
    """

    def __init__(
        self,
        model: Encoder,
        *,
        slots: int = 32,
        token_budget: int = TOKEN_BUDGET,
        context_length: int | None = None,
        digest: str = "",
    ) -> None:
        self._model = model
        self._slots, self._budget, self._digest = slots, token_budget, digest
        longest = model.shape.context_length
        self._longest = min(context_length or longest, longest)
        self._jobs: dict[str, _Work] = {}
        self._steps = self._computed = 0
        set_threads(torch.get_num_threads())

    def capacity(self) -> int:
        return self._slots - len(self._jobs)

    def add(self, job: Job, logged: Sequence[Made] = ()) -> None:
        if job.id in self._jobs:
            raise RequestError(f"Job {job.id} is already running here.", code="duplicate_job")
        self._check(job)
        texts, start = [], 0
        for length in job.lengths:
            texts.append(job.input_ids[start : start + length])
            start += length
        done = {text for event in logged if isinstance(event, Embedded) for text in event.texts}
        if done - set(range(len(texts))):
            raise RequestError(f"The log has a text {max(done)}; the job has fewer.")
        left = sorted(set(range(len(texts))) - done, key=lambda text: -job.lengths[text])
        self._jobs[job.id] = _Work(job, texts, deque(left), begun=bool(done))

    def _check(self, job: Job) -> None:
        """Refuse what can never run here."""
        if self._digest and job.model_digest and job.model_digest != self._digest:
            raise RequestError(
                f"The job was made for weights {job.model_digest}, but this worker has "
                f"{self._digest}. Send the request again.",
                code="model_changed",
            )
        if not job.lengths:
            raise RequestError(
                f"{job.model} makes embeddings and can't go on from a text. Ask another model."
            )
        if sum(job.lengths) != len(job.input_ids) or min(job.lengths) < 1:
            raise RequestError(
                f"The texts' lengths are those of {sum(job.lengths)} tokens, and there are "
                f"{len(job.input_ids)}; none may be empty."
            )
        number = max(range(len(job.lengths)), key=lambda text: job.lengths[text])
        if job.lengths[number] > self._longest:
            raise RequestError(
                f"input[{number}] has {job.lengths[number]} tokens; this model reads at most "
                f"{self._longest}. Shorten it, or send it in parts.",
                code="context_length_exceeded",
            )
        vocabulary = self._model.shape.vocabulary
        wrong = next((token for token in job.input_ids if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise RequestError(
                f"The input has token {wrong}; the model's tokens are 0 to {vocabulary - 1}."
            )

    def cancel(self, job_id: str) -> None:
        if work := self._jobs.get(job_id):
            work.cancelled = True

    def remove(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._jobs),
            slots=self._slots,
            prompt_tokens=self._computed,
            steps=self._steps,
        )

    def step(self) -> list[tuple[str, EngineEvent]]:
        self._steps += 1
        events: list[tuple[str, EngineEvent]] = []
        for job_id, work in list(self._jobs.items()):
            if work.cancelled:
                del self._jobs[job_id]
                events.append((job_id, Cancelled(usage=work.usage())))
        with torch.inference_mode():
            self._execute(self._plan(), events)
        for job_id, work in list(self._jobs.items()):
            if work.made:
                texts, vectors = zip(*work.made, strict=True)
                events.append((job_id, Embedded(texts=texts, vectors=vectors)))
                work.made = []
            if not work.waiting:
                del self._jobs[job_id]
                events.append((job_id, Finished(reason="stop", usage=work.usage())))
        return events

    def _plan(self) -> list[tuple[_Work, int]]:
        """This step's texts, taken from the jobs in turn."""
        taken: list[tuple[_Work, int]] = []
        turns, room = deque(work for work in self._jobs.values() if work.waiting), self._budget
        while turns and room > 0:
            work = turns.popleft()
            text = work.waiting[0]
            if taken and len(work.texts[text]) > room:
                continue
            taken.append((work, work.waiting.popleft()))
            room -= len(work.texts[text])
            if work.waiting:
                turns.append(work)
        for work, _ in taken:  # who was served waits behind who was not
            self._jobs[work.job.id] = self._jobs.pop(work.job.id)
        return taken

    def _execute(
        self, plan: Sequence[tuple[_Work, int]], events: list[tuple[str, EngineEvent]]
    ) -> None:
        """Compute; on an error in halves, so that one text fails its job alone."""
        if not plan:
            return
        try:
            vectors = self._model.embed([work.texts[text] for work, text in plan])
            rows = vectors.to(device="cpu", dtype=torch.float32).contiguous()
            finite = rows.isfinite().all(1).tolist()
        except Exception as error:
            if hopeless(error):
                raise
            if len(plan) > 1:
                self._execute(plan[: len(plan) // 2], events)
                self._execute(plan[len(plan) // 2 :], events)
                return
            self._fail(plan[0][0], *explained(error), events)
            return
        data = rows.numpy().astype("<f4", copy=False)
        for (work, text), row, good in zip(plan, data, finite, strict=True):
            work.begun = True
            if good:
                work.made.append((text, base64.b64encode(row.tobytes()).decode()))
                self._computed += len(work.texts[text])
            else:
                self._fail(work, "not_finite", NOT_FINITE, events)

    def _fail(
        self, work: _Work, code: str, message: str, events: list[tuple[str, EngineEvent]]
    ) -> None:
        if self._jobs.pop(work.job.id, None) is not None:
            usage = work.usage() if work.begun else Usage()
            events.append((work.job.id, Failed(code=code, message=message, usage=usage)))
