"""A job in progress: its choices' text, its scores, its bill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from inference_workers.contract import Delta, Job, TokenLogprob, Usage
from inference_workers.engine.detokenizer import Detokenizer
from inference_workers.engine.grammar import Grammar, Mask
from inference_workers.engine.request import Request
from inference_workers.errors import RequestError
from inference_workers.vocabulary import Vocabulary

Finish = Literal["stop", "length"]


class Stream:
    """One choice: counts tokens, makes text, knows when to end. A function of prompt and tokens."""

    def __init__(
        self, vocabulary: Vocabulary, job: Job, limit: int, end_tokens: frozenset[int]
    ) -> None:
        sampling = job.sampling
        self.tokens: list[int] = []
        self.ends = sorted({*sampling.stop_token_ids, *(() if sampling.ignore_eos else end_tokens)})
        self.finish: Finish | None = None
        self.grammar: Grammar | None = None
        self._least = sampling.min_tokens
        self._limit = limit
        self._stopping = frozenset(self.ends)
        self._text = Detokenizer(
            vocabulary, job.input_ids, sampling.stop, min_tokens=sampling.min_tokens
        )

    def take(self, token: int) -> str:
        """Add a token; the text that became certain. ``finish`` is set when it was the last."""
        self.tokens.append(token)
        if token in self._stopping:
            self.finish = "stop"
            return self._text.flush()
        text = self._text.push(token)
        whole = self._guide(token)
        if not self._text.stopped and (whole or len(self.tokens) >= self._limit):
            self.finish = "length"
            text += self._text.flush()
        if self._text.stopped or whole:
            self.finish = "stop"
        return text

    def mask(self) -> Mask | None:
        """Which tokens its guide allows next, if it has one."""
        if self.grammar is None:
            return None
        if len(self.tokens) < self._least:
            return self.grammar.allowed(without=self.ends)
        return self.grammar.allowed(ends=self.ends)

    def _guide(self, token: int) -> bool:
        """Whether the guide allows nothing after ``token``."""
        if self.grammar is None:
            return False
        self.grammar.take(token)
        return self.grammar.complete and self.grammar.error is None


class Tracked:
    """A job with its choices. ``requests`` holds those still to be completed, by choice."""

    def __init__(
        self,
        job: Job,
        vocabulary: Vocabulary,
        limit: int,
        end_tokens: frozenset[int],
    ) -> None:
        self.job = job
        self.limit = limit
        self.streams = [Stream(vocabulary, job, limit, end_tokens) for _ in range(job.sampling.n)]
        self.requests: dict[int, Request] = {}
        self.cached: int | None = None
        self.scores: list[TokenLogprob] | None = (
            [] if job.sampling.prompt_logprobs is not None else None
        )

    def replay(self, logged: Sequence[Delta]) -> None:
        """Take what earlier epochs logged, which is never emitted again.

        Raises:
            RequestError: the log is not one of this job.
        """
        for delta in logged:
            if delta.choice >= len(self.streams):
                raise RequestError(f"The log has a choice {delta.choice}; the job has fewer.")
            stream = self.streams[delta.choice]
            if delta.first != len(stream.tokens):
                raise RequestError(
                    f"The log of choice {delta.choice} goes on at token {delta.first} after "
                    f"{len(stream.tokens)} tokens: entries are missing."
                )
            for token in delta.token_ids:
                stream.take(token)
            stream.finish = delta.finish
            if delta.prompt_logprobs is not None:
                self.scores = None

    @property
    def begun(self) -> bool:
        """Whether anything was computed for it, here or before."""
        return self.cached is not None or any(stream.tokens for stream in self.streams)

    def unfinished(self) -> list[Stream]:
        """The choices that go on."""
        return [stream for stream in self.streams if stream.finish is None]

    def take_scores(self) -> tuple[TokenLogprob, ...] | None:
        """The prompt's scores, the first time they are asked for."""
        if self.scores is None:
            return None
        scores, self.scores = tuple(self.scores), None
        return scores

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.job.input_ids),
            completion_tokens=sum(len(stream.tokens) for stream in self.streams),
            cached_tokens=self.cached or 0,
        )

    def reason(self) -> Finish:
        return "length" if any(s.finish == "length" for s in self.streams) else "stop"
