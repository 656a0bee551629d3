"""The torch engine: ``step()`` schedules, runs, samples and emits.

A step computes first and changes state after: when computing fails, its work is halved and tried
again until the one request that can't be computed has failed alone. ``Job.deadline`` is the
runtime's to watch: the engine's clock only tells how long its own steps take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import torch
from tokenizers import Tokenizer

from inference_workers.contract import (
    Cancelled,
    Delta,
    Failed,
    Finished,
    Job,
    Made,
    TokenLogprob,
    Usage,
)
from inference_workers.engine.admission import Limits
from inference_workers.engine.failures import NOT_FINITE, explained, hopeless
from inference_workers.engine.grammar import Compiling, Grammars, idle
from inference_workers.engine.kv_cache import BlockCache
from inference_workers.engine.pace import Pace
from inference_workers.engine.protocol import EngineEvent, EngineStats
from inference_workers.engine.request import Request, Status
from inference_workers.engine.runner import Runner, Work
from inference_workers.engine.sampler import ROWS, Choice, Row, sample, score
from inference_workers.engine.scheduler import Scheduled, Scheduler
from inference_workers.engine.streams import Tracked
from inference_workers.errors import ConfigError, RequestError
from inference_workers.models.base import CausalModel
from inference_workers.vocabulary import Vocabulary

BLOCK_SIZE = 16
DEFAULT_KV_MEMORY = 512 << 20
TOKEN_BUDGET, ACCELERATED_BUDGET = 128, 512
"""Prompt tokens of a step. On a CPU a model of 270 million parameters takes 1 % less time with 256
than with 128, and 12 MB more of memory for what layers hand to each other."""
REST_SECONDS = 0.005
"""How long a step rests at a time when all that is left to do is to wait for a guide."""


class TorchEngine:
    """One model, many requests. Keeps ``protocol.Engine``.

    ``kv_memory`` is in bytes; ``token_budget`` bounds the prompt tokens of a step, and ``pace``
    those of one beside running streams, who wait for it; ``digest`` names the weights.
    """

    def __init__(
        self,
        model: CausalModel,
        words: Tokenizer | Vocabulary,
        *,
        eos_token_ids: Iterable[int] = (),
        slots: int = 32,
        kv_memory: int = DEFAULT_KV_MEMORY,
        block_size: int = BLOCK_SIZE,
        token_budget: int | None = None,
        digest: str = "",
        context_length: int | None = None,
        reuse_prefixes: bool = True,
    ) -> None:
        shape = model.shape
        blocks = kv_memory // (shape.token_bytes() * block_size)
        if token_budget is None:
            token_budget = TOKEN_BUDGET if shape.device.type == "cpu" else ACCELERATED_BUDGET
        if blocks < 1 or slots < 1 or token_budget < 1:
            raise ConfigError(
                f"kv_memory {kv_memory} bytes, slots {slots} and token_budget {token_budget} must "
                f"each be at least one block ({shape.token_bytes() * block_size} bytes), 1 and 1."
            )
        self._model = model
        self._vocabulary = Vocabulary.of(words)
        self._eos = frozenset(eos_token_ids)
        self._cache = BlockCache(blocks, block_size, digest=digest, reuse=reuse_prefixes)
        self._pace, self._clock = Pace(), _clock(shape.device)
        self._scheduler = Scheduler(
            self._cache, slots=slots, budget=token_budget, beside=self._pace.beside
        )
        self._runner = Runner(model, blocks=blocks, block_size=block_size)
        self._limits = Limits(
            vocabulary=shape.vocabulary,
            context_length=min(context_length or shape.context_length, shape.context_length),
            cache_tokens=blocks * block_size,
            digest=digest,
            deterministic=shape.deterministic,
        )
        self._grammars = Grammars(self._vocabulary, self._eos)
        self._compiling: dict[str, Compiling] = {}
        self._jobs: dict[str, Tracked] = {}
        self._events: dict[str, list[EngineEvent]] = {}
        self._steps = self._generated = self._prompted = 0

    def capacity(self) -> int:
        scheduler = self._scheduler
        if scheduler.blocked and scheduler.waiting:
            return 0
        held = sum(len(self._jobs[job_id].unfinished()) for job_id in self._compiling)
        return max(scheduler.slots - len(scheduler.running) - len(scheduler.waiting) - held, 0)

    def add(self, job: Job, logged: Sequence[Made] = ()) -> None:
        if job.id in self._jobs:
            raise RequestError(f"Job {job.id} is already running here.", code="duplicate_job")
        limit = self._limits.admit(job)
        tracked = Tracked(job, self._vocabulary, limit, self._eos)
        tracked.replay([event for event in logged if isinstance(event, Delta)])
        guide, going_on = job.sampling.guide, tracked.unfinished()
        if guide is not None and limit and going_on:
            self._compiling[job.id] = self._grammars.compile(guide, [s.tokens for s in going_on])
        self._jobs[job.id] = tracked
        if job.id not in self._compiling:
            self._begin(tracked)

    def _begin(self, tracked: Tracked) -> None:
        """Line up the choices that go on."""
        job = tracked.job
        scoring = tracked.scores is not None and len(job.input_ids) > 1
        leader: Request | None = None
        for choice, stream in enumerate(tracked.streams):
            if stream.finish is not None or not (tracked.limit or (scoring and leader is None)):
                continue
            request = Request(
                job=job.id,
                choice=choice,
                tokens=[*job.input_ids, *stream.tokens],
                prompt=len(job.input_ids),
                salts=job.prefixes,
                pinned=job.pinned,
                own=f"job:{job.id}",
                leader=leader,
                scored=0 if scoring and leader is None else None,
            )
            leader = leader or request
            tracked.requests[choice] = request
            self._scheduler.add(request)
        if not tracked.requests:
            self._end_unsampled(tracked)

    def _take_compiled(self) -> None:
        """Let in the jobs whose guides are compiled; end those whose guides are refused."""
        for job_id, compiling in list(self._compiling.items()):
            tracked = self._jobs[job_id]
            try:
                grammars = compiling.poll()
            except RequestError as error:
                if not compiling.future.done():
                    self._grammars.give_up()
                self._fail(job_id, error.code, error.message)
                continue
            if grammars is not None:
                del self._compiling[job_id]
                for stream, grammar in zip(tracked.unfinished(), grammars, strict=True):
                    stream.grammar = grammar
                self._begin(tracked)

    def cancel(self, job_id: str) -> None:
        tracked = self._drop(job_id)
        if tracked is not None:
            self._emit(job_id, Cancelled(usage=tracked.usage()))

    def remove(self, job_id: str) -> None:
        self._drop(job_id)
        self._events.pop(job_id, None)

    @property
    def busy(self) -> bool:
        return bool(self._jobs or self._events)

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            slots=self._scheduler.slots,
            blocks_used=self._cache.used,
            blocks_total=self._cache.blocks,
            prefix_hits=self._cache.hits,
            prefix_lookups=self._cache.lookups,
            generated_tokens=self._generated,
            prompt_tokens=self._prompted,
            steps=self._steps,
        )

    def step(self) -> list[tuple[str, EngineEvent]]:
        self._steps += 1
        if self._compiling:
            self._take_compiled()
        plan = self._scheduler.schedule()
        if plan:
            began = self._clock()
            with torch.inference_mode():
                self._runner.clear(self._cache.take_fresh())
                self._execute([self._work(item) for item in plan])
            streams = sum(item.count == 1 for item in plan)
            tokens = sum(item.count for item in plan) - streams
            self._pace.took(streams, tokens, self._clock() - began)
        elif self._compiling and not self._events:
            idle(self._compiling.values(), REST_SECONDS)
        events, self._events = self._events, {}
        return [(job_id, event) for job_id, found in events.items() for event in found]

    def check(self) -> None:
        """Raise ``AssertionError`` unless every block is accounted for; for tests."""
        requests = [r for tracked in self._jobs.values() for r in tracked.requests.values()]
        self._cache.check(requests)

    def _work(self, item: Scheduled) -> Work:
        request, tracked = item.request, self._jobs[item.request.job]
        if tracked.cached is None:
            tracked.cached = min(request.reused, request.prompt)
        start, end = request.computed, request.computed + item.count
        scored = range(0)
        if request.unscored:
            scored = range(max(start, request.scored or 0), min(end, request.prompt - 1))
        done = end == len(request.tokens)
        return Work(request, item.count, scored, sampled=done and tracked.limit > 0)

    def _execute(self, work: list[Work]) -> None:
        """Compute, then commit; on an error in halves, so that one request fails alone."""
        work = [item for item in work if item.request.status is Status.RUNNING]
        if not work:
            return
        try:
            scores, choices = self._compute(work)
        except Exception as error:
            if hopeless(error):
                raise
            if len(work) > 1:
                self._execute(work[: len(work) // 2])
                self._execute(work[len(work) // 2 :])
                return
            self._fail(work[0].request.job, *explained(error))
            return
        for item, scored, choice in zip(work, scores, choices, strict=True):
            if item.request.status is Status.RUNNING:
                self._commit(item, scored, choice)

    def _compute(
        self, work: Sequence[Work]
    ) -> tuple[list[list[TokenLogprob]], list[Choice | None]]:
        """Scores and choice of each work; nothing of the engine's state changes."""
        states = self._runner.run(work)
        sampled: list[int] = []
        scored: list[tuple[int, int, int]] = []
        rows: list[Row] = []
        at = 0
        for item in work:
            request, sampling = item.request, self._jobs[item.request.job].job.sampling
            for offset, position in enumerate(item.scored):
                top = sampling.prompt_logprobs or 0
                scored.append((at + offset, request.tokens[position + 1], top))
            at += len(item.scored)
            if item.sampled:
                sampled.append(at)
                rows.append(self._row(request))
                at += 1
        if len(sampled) < at:
            last = states[torch.tensor(sampled, dtype=torch.int64, device=states.device)]
        else:
            last = states
        chosen = iter(sample(self._model, last, rows) if rows else [])
        scores = iter(self._score(states, scored))
        return (
            [[next(scores) for _ in item.scored] for item in work],
            [next(chosen) if item.sampled else None for item in work],
        )

    def _row(self, request: Request) -> Row:
        tracked = self._jobs[request.job]
        stream = tracked.streams[request.choice]
        return Row(
            sampling=tracked.job.sampling,
            seed=tracked.job.seed,
            choice=request.choice,
            index=len(stream.tokens),
            prompt=tracked.job.input_ids,
            output=stream.tokens,
            ends=stream.ends,
            mask=stream.mask(),
        )

    def _score(
        self, states: torch.Tensor, wanted: Sequence[tuple[int, int, int]]
    ) -> list[TokenLogprob]:
        result: list[TokenLogprob] = []
        for start in range(0, len(wanted), ROWS):
            rows, tokens, tops = zip(*wanted[start : start + ROWS], strict=True)
            index = torch.tensor(rows, dtype=torch.int64, device=states.device)
            result += score(self._model.logits(states[index]).float(), tokens, tops)
        return result

    def _commit(self, item: Work, scored: list[TokenLogprob], choice: Choice | None) -> None:
        """Make one work's outcome the state, and emit it."""
        request, tracked = item.request, self._jobs[item.request.job]
        failed = choice is not None and choice.token is None
        if failed or any(s.logprob != s.logprob for s in scored):
            self._fail(request.job, "not_finite", NOT_FINITE)
            return
        before = request.computed
        request.computed += item.count
        self._prompted += max(min(request.computed, request.prompt) - before, 0)
        self._cache.remember(request, before)
        if scored and tracked.scores is not None:
            tracked.scores += scored
            request.scored = item.scored.stop
        if choice is not None and choice.token is not None:
            self._take(tracked, request, choice.token, choice.logprob)
        elif not tracked.limit and not request.pending:
            self._end_unsampled(tracked)

    def _take(
        self, tracked: Tracked, request: Request, token: int, logprob: TokenLogprob | None
    ) -> None:
        stream = tracked.streams[request.choice]
        text = stream.take(token)
        request.tokens.append(token)
        self._generated += 1
        delta = Delta(
            choice=request.choice,
            first=len(stream.tokens) - 1,
            token_ids=(token,),
            text=text,
            logprobs=None if logprob is None else (logprob,),
            prompt_logprobs=tracked.take_scores(),
            finish=stream.finish,
        )
        self._emit(request.job, delta)
        if (
            stream.finish is None
            and stream.grammar is not None
            and stream.grammar.error is not None
        ):
            self._fail(request.job, stream.grammar.error.code, stream.grammar.error.message)
        elif stream.finish is not None:
            self._scheduler.end(tracked.requests.pop(request.choice))
            if not tracked.requests:
                self._finish(tracked)

    def _end_unsampled(self, tracked: Tracked) -> None:
        """End the choices that generate nothing: ``max_tokens`` is 0, or all ended earlier."""
        for choice, stream in enumerate(tracked.streams):
            if stream.finish is None:
                stream.finish = "length"
                scores = tracked.take_scores()
                delta = Delta(
                    choice=choice, first=0, token_ids=(), prompt_logprobs=scores, finish="length"
                )
                self._emit(tracked.job.id, delta)
        self._finish(tracked)

    def _finish(self, tracked: Tracked) -> None:
        self._drop(tracked.job.id)
        self._emit(tracked.job.id, Finished(reason=tracked.reason(), usage=tracked.usage()))

    def _fail(self, job_id: str, code: str, message: str) -> None:
        tracked = self._jobs[job_id]
        for request in tracked.requests.values():
            self._cache.discard(request)
        self._drop(job_id)
        usage = tracked.usage() if tracked.begun else Usage()
        self._emit(job_id, Failed(code=code, message=message, usage=usage))

    def _drop(self, job_id: str) -> Tracked | None:
        tracked = self._jobs.pop(job_id, None)
        self._compiling.pop(job_id, None)
        if tracked is not None:
            for request in tracked.requests.values():
                self._scheduler.end(request)
            tracked.requests.clear()
        return tracked

    def _emit(self, job_id: str, event: EngineEvent) -> None:
        self._events.setdefault(job_id, []).append(event)


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds as steps are timed in: on a CPU those for which its cores worked, so that what else
    runs on the machine doesn't look like a dear prompt or a slow stream."""
    if device.type != "cpu":
        return time.perf_counter
    threads = torch.get_num_threads()
    return lambda: time.process_time() / threads
