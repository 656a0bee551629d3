"""A model without weights: it says the prompt again, byte by byte.

It keeps the engine's protocol whole, so queue, portal and page run and are tested without torch.
Its tokens are bytes (``models/echo_folder.py``): most characters beyond ASCII are several tokens.

Greedy (temperature 0) repeats the prompt's tokens round and round. Sampled output is CJK characters
drawn from (seed, choice, index) alone. Either way a token depends on the job and its index, so a
resumed job goes on with the same bytes. A prompt is computed in chunks, as a real one is.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tokenizers import Tokenizer

from inference_workers.contract import (
    Cancelled,
    Delta,
    Finished,
    Job,
    Made,
    Sampling,
    TokenLogprob,
    Usage,
)
from inference_workers.engine.detokenizer import Detokenizer
from inference_workers.engine.protocol import EngineEvent, EngineStats
from inference_workers.errors import RequestError
from inference_workers.vocabulary import Vocabulary

BOS, EOS = 256, 257
BLOCK = 16
POISON = b"\x00POISON"


def kill_self() -> None:
    """What a fault in a kernel or the memory killer would do."""
    os.kill(os.getpid(), signal.SIGKILL)


class EchoEngine:
    """Runs up to ``slots`` jobs together.

    ``step_seconds`` is how long a step takes, ``chunk`` how many prompt tokens of one job it
    computes. ``on_poison`` is called in the first step of a prompt that contains ``POISON``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        slots: int = 32,
        context_length: int = 8192,
        step_seconds: float = 0.0,
        chunk: int = 512,
        on_poison: Callable[[], None] | None = None,
    ) -> None:
        self._vocabulary = Vocabulary.of(tokenizer)
        self._slots = slots
        self._context = context_length
        self._step_seconds = step_seconds
        self._chunk = chunk
        self._on_poison = on_poison
        self._requests: dict[str, _Request] = {}
        self._steps = self._generated = self._prompted = 0

    def capacity(self) -> int:
        return self._slots - len(self._requests)

    def add(self, job: Job, logged: Sequence[Made] = ()) -> None:
        prompt, sampling = len(job.input_ids), job.sampling
        if prompt == 0:
            raise RequestError("The prompt is empty. Send at least one token.")
        if prompt + sampling.max_tokens > self._context:
            raise RequestError(
                f"{prompt} prompt tokens and {sampling.max_tokens} new ones exceed the context of "
                f"{self._context}. Shorten the prompt, or ask for fewer tokens.",
                code="context_length_exceeded",
            )
        if sampling.guide is not None:
            raise RequestError(
                "guide: the echo model says its prompt again and can't follow a schema or a "
                "pattern. Leave the guide out, or choose another model.",
                code="guide_unsupported",
            )
        choices = [_Choice(self._detokenizer(job), index) for index in range(sampling.n)]
        for delta in logged:
            if isinstance(delta, Delta):
                choices[delta.choice].replay(delta)
        self._requests[job.id] = _Request(job, choices, scored=bool(logged))

    def _detokenizer(self, job: Job) -> Detokenizer:
        return Detokenizer(self._vocabulary, job.input_ids, job.sampling.stop)

    def cancel(self, job_id: str) -> None:
        if request := self._requests.get(job_id):
            request.cancelled = True

    def remove(self, job_id: str) -> None:
        self._requests.pop(job_id, None)

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    def step(self) -> list[tuple[str, EngineEvent]]:
        if self._requests and self._step_seconds:
            time.sleep(self._step_seconds)
        events: list[tuple[str, EngineEvent]] = []
        for job_id, request in list(self._requests.items()):
            made = self._advance(request)
            events += [(job_id, event) for event in made]
            if made and not isinstance(made[-1], Delta):
                del self._requests[job_id]
        self._steps += bool(self._requests or events)
        return events

    def _advance(self, request: _Request) -> list[EngineEvent]:
        if request.cancelled:
            return [Cancelled(usage=request.usage())]
        if self._on_poison and POISON in bytes(i for i in request.job.input_ids if i < BOS):
            self._on_poison()
        todo = len(request.job.input_ids) + request.tokens() - request.computed
        if todo > 0:
            taken = min(todo, self._chunk)
            request.computed += taken
            self._prompted += taken
            if taken < todo:
                return []
        events: list[EngineEvent] = []
        for choice in request.choices:
            if choice.finish is None:
                delta = choice.advance(request)
                events.append(delta)
                self._generated += len(delta.token_ids)
                request.computed += len(delta.token_ids)
        if all(choice.finish for choice in request.choices):
            cut = any(choice.finish == "length" for choice in request.choices)
            events.append(Finished(reason="length" if cut else "stop", usage=request.usage()))
        return events

    def stats(self) -> EngineStats:
        used = sum(-(-request.computed // BLOCK) for request in self._requests.values())
        return EngineStats(
            running=len(self._requests),
            slots=self._slots,
            blocks_used=used,
            blocks_total=self._slots * self._context // BLOCK,
            generated_tokens=self._generated,
            prompt_tokens=self._prompted,
            steps=self._steps,
        )


@dataclass(slots=True)
class _Request:
    job: Job
    choices: list[_Choice]
    scored: bool
    """Whether the prompt's logprobs are in the log."""
    computed: int = 0
    cancelled: bool = False

    def tokens(self) -> int:
        return sum(choice.count for choice in self.choices)

    def usage(self) -> Usage:
        return Usage(prompt_tokens=len(self.job.input_ids), completion_tokens=self.tokens())


@dataclass(slots=True)
class _Choice:
    detokenizer: Detokenizer
    index: int
    count: int = 0
    finish: Literal["stop", "length"] | None = field(default=None)

    def replay(self, delta: Delta) -> None:
        """Take over what an earlier epoch has logged."""
        for token_id in delta.token_ids:
            self.detokenizer.push(token_id)
        self.count += len(delta.token_ids)
        self.finish = delta.finish

    def advance(self, request: _Request) -> Delta:
        job, sampling = request.job, request.job.sampling
        scores = None
        if not request.scored:
            request.scored = True
            scores = _score(job.input_ids[1:], sampling.prompt_logprobs)
        if sampling.max_tokens == 0:
            self.finish = "length"
            return Delta(
                choice=self.index, first=0, token_ids=(), prompt_logprobs=scores, finish="length"
            )
        token_id = _token(job, self.index, self.count)
        self.count += 1
        text = self.detokenizer.push(token_id)
        self.finish = self._reason(token_id, sampling)
        if self.finish:
            text += self.detokenizer.flush()
        return Delta(
            choice=self.index,
            first=self.count - 1,
            token_ids=(token_id,),
            text=text,
            logprobs=_score((token_id,), sampling.logprobs),
            prompt_logprobs=scores,
            finish=self.finish,
        )

    def _reason(self, token_id: int, sampling: Sampling) -> Literal["stop", "length"] | None:
        if self.detokenizer.stopped:
            return "stop"
        if self.count > sampling.min_tokens and (
            token_id in sampling.stop_token_ids or (token_id == EOS and not sampling.ignore_eos)
        ):
            return "stop"
        return "length" if self.count >= sampling.max_tokens else None


def _token(job: Job, choice: int, index: int) -> int:
    """The token at ``index`` of a choice: a function of the job alone."""
    if job.sampling.temperature == 0:
        said = [token_id for token_id in job.input_ids if token_id != BOS] or [EOS]
        return said[index % len(said)]
    place, byte = divmod(index, 3)
    drawn = hashlib.blake2b(f"{job.seed}/{choice}/{place}".encode(), digest_size=8).digest()
    return chr(0x4E00 + int.from_bytes(drawn) % 0x5000).encode()[byte]


def _score(token_ids: Sequence[int], top: int | None) -> tuple[TokenLogprob, ...] | None:
    """Invented but constant: the token itself is likely, its neighbours are less and less so."""
    if top is None:
        return None
    return tuple(
        TokenLogprob(
            token_id=token_id,
            logprob=-0.1,
            top=tuple(((token_id + rank) % BOS, -0.1 - 2.0 * rank) for rank in range(top)),
        )
        for token_id in token_ids
    )
