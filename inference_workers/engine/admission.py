"""Which jobs an engine can run at all; the others are refused with numbers, before anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inference_workers.contract import Job
from inference_workers.errors import RequestError


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model and the cache allow. ``cache_tokens`` is what one sequence may occupy;
    ``deterministic`` says that a request's results do not depend on what else runs."""

    vocabulary: int
    context_length: int
    cache_tokens: int
    digest: str
    deterministic: bool = False

    def admit(self, job: Job) -> int:
        """The tokens that each choice may generate.

        Raises:
            RequestError: it can never run here; the message says what would fit.
        """
        self._served(job)
        self._tokens(job)
        length, wanted = len(job.input_ids), job.sampling.max_tokens
        room = self.context_length - length
        if room < 0 or (wanted and not room):
            raise RequestError(
                f"The prompt has {length} tokens and the model's context holds "
                f"{self.context_length}, the answer included. Shorten the prompt to at most "
                f"{self.context_length - min(wanted, 1)} tokens.",
                code="context_length_exceeded",
            )
        limit = min(wanted, room)
        # The last token is never computed: nothing follows it.
        occupied = length + max(limit - 1, 0)
        if occupied > self.cache_tokens:
            raise RequestError(
                f"The prompt's {length} tokens and an answer of up to {limit} need room for "
                f"{occupied} tokens; this worker's cache holds {self.cache_tokens}. Shorten the "
                "prompt, lower max_tokens, or give the worker more cache memory.",
                code="cache_too_small",
            )
        return limit

    def _served(self, job: Job) -> None:
        if job.lengths:
            raise RequestError(
                f"{job.model} goes on from a text and makes no embeddings. Ask an encoder model."
            )
        if job.adapter is not None:
            raise RequestError("adapter: adapters can't be served yet. Leave it out.")
        if job.sampling.deterministic and not self.deterministic:
            raise RequestError(
                "deterministic: here this model's results depend in the last digits on what else "
                "runs. They do not where packed weights of a lean family are multiplied by the "
                "worker's own kernels on a CPU: make a lighter version (manage.py models quantize "
                "NAME --format int8) and ask for that, or leave it out."
            )
        if self.digest and job.model_digest and job.model_digest != self.digest:
            raise RequestError(
                f"The job was made for weights {job.model_digest}, but this worker has "
                f"{self.digest}. Send the request again.",
                code="model_changed",
            )

    def _tokens(self, job: Job) -> None:
        if not job.input_ids:
            raise RequestError("The prompt is empty: give at least one token.")
        self._in_vocabulary("The prompt", job.input_ids)
        self._in_vocabulary("logit_bias", job.sampling.logit_bias)
        self._in_vocabulary("stop_token_ids", job.sampling.stop_token_ids)
        lengths = [length for _, length in job.prefixes]
        if any(length < 0 for length in lengths) or sum(lengths) > len(job.input_ids):
            raise RequestError(
                f"prefixes cover {sum(lengths)} tokens of a prompt of {len(job.input_ids)}."
            )

    def _in_vocabulary(self, field: str, tokens: Iterable[int]) -> None:
        wrong = next((t for t in tokens if not 0 <= t < self.vocabulary), None)
        if wrong is not None:
            raise RequestError(
                f"{field} has token {wrong}; the model's tokens are 0 to {self.vocabulary - 1}."
            )
