"""From logits to tokens. Every draw is a function of (seed, choice, token index) and the logits.

Order: repetition, frequency and presence penalties and logit bias; tokens forbidden before
``min_tokens`` or by a guide; temperature; top-k; top-p of what top-k left; min-p; one draw by
inverse distribution in the vocabulary's order. Log-probabilities are the model's own, before all
that. Nothing here loops over the vocabulary in Python, and a batch of greedy rows never leaves the
fast path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference_workers.contract import Sampling, TokenLogprob
from inference_workers.engine.counter import uniform
from inference_workers.layers.linear import greedy
from inference_workers.layers.masks import Mask, forbid
from inference_workers.models.base import CausalModel

ROWS = 8
"""Rows turned into float32 probabilities at a time: bounds memory at large vocabularies."""
SHARED = 32
"""Up to so many rows share one product with the head's weights when some of them need all their
logits. With more, the fused greedy choice saves more than reading the weights twice costs."""
CANDIDATES = 256
"""Restricted draws look among so many largest logits first (a tenth of the time of looking at a
vocabulary of 262144), and at everything only if others might belong to the draw."""
NUCLEUS = 2048
"""Top-p looks among so many largest probabilities first, and sorts everything only if it must."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence about to get its token number ``index`` (from 0). ``prompt`` and ``output`` are
    its tokens so far; ``ends`` are the tokens that would end it; bit ``t % 32`` of ``mask``'s word
    ``t // 32`` says whether its guide allows token ``t``."""

    sampling: Sampling
    seed: int
    choice: int
    index: int
    prompt: Sequence[int] = ()
    output: Sequence[int] = ()
    ends: Sequence[int] = ()
    mask: Mask | None = None

    @property
    def edits(self) -> bool:
        """Whether the logits are changed before the choice."""
        return self.mask is not None or self._shifts

    @property
    def _shifts(self) -> bool:
        s = self.sampling
        return bool(
            s.repetition_penalty != 1
            or s.presence_penalty
            or s.frequency_penalty
            or s.logit_bias
            or self.index < s.min_tokens
        )

    @property
    def plain(self) -> bool:
        """Whether the largest logit that its guide allows is all that matters."""
        s = self.sampling
        return not s.temperature and s.logprobs is None and not self._shifts


@dataclass(slots=True)
class Choice:
    """A chosen token, or none when the row's logits were not finite."""

    token: int | None
    logprob: TokenLogprob | None = None


def sample(model: CausalModel, states: Tensor, rows: Sequence[Row]) -> list[Choice]:
    """The next token of each row of ``states``; a row that is not finite gives none."""
    plain = [i for i, row in enumerate(rows) if row.plain]
    other = [i for i, row in enumerate(rows) if not row.plain]
    shared = model.logits(states) if other and len(rows) <= SHARED else None
    chosen: dict[int, Choice] = {}
    if plain:
        masks = [rows[i].mask for i in plain]
        if shared is None:
            some = states if not other else states[plain]
            picked = model.greedy(some, masks if any(m is not None for m in masks) else None)
        else:
            logits = shared[plain]
            forbid(logits, masks)
            picked = greedy(logits)
        chosen.update(zip(plain, _picked(*picked), strict=True))
    for start in range(0, len(other), ROWS):
        part = other[start : start + ROWS]
        logits = model.logits(states[part]) if shared is None else shared[part]
        chosen.update(zip(part, choose(logits.float(), [rows[i] for i in part]), strict=True))
    return [chosen[i] for i in range(len(rows))]


def _picked(best: Tensor, tokens: Tensor) -> list[Choice]:
    return [
        Choice(token if math.isfinite(value) else None)
        for token, value in zip(tokens.tolist(), best.tolist(), strict=True)
    ]


def choose(logits: Tensor, rows: Sequence[Row]) -> list[Choice]:
    """Tokens for float32 ``logits`` of shape ``(rows, vocabulary)``, which may be changed."""
    finite = logits.amax(-1).isfinite().tolist()
    tops = [row.sampling.logprobs for row in rows]
    scored = any(top is not None for top in tops)
    raw = logits
    if any(row.edits for row in rows):
        raw = logits.clone() if scored else logits
        edit(logits, rows)
    tokens = _draw(logits, rows).tolist()
    wanted = [i for i, top in enumerate(tops) if top is not None and finite[i]]
    scores: dict[int, TokenLogprob] = {}
    if wanted:
        index = torch.tensor(wanted, device=logits.device)
        part = raw if len(wanted) == len(rows) else raw[index]
        found = score(part, [tokens[i] for i in wanted], [tops[i] or 0 for i in wanted])
        scores = dict(zip(wanted, found, strict=True))
    return [
        Choice(tokens[i], scores.get(i)) if finite[i] else Choice(None) for i in range(len(rows))
    ]


def score(logits: Tensor, tokens: Sequence[int], tops: Sequence[int]) -> list[TokenLogprob]:
    """Log-probabilities of ``tokens`` and of each row's ``tops`` most likely alternatives."""
    total = _log_total(logits)
    index = torch.tensor(tokens, device=logits.device)
    own = (logits.gather(1, index[:, None])[:, 0] - total).tolist()
    most = min(max(tops), logits.shape[1])
    if not most:
        return [TokenLogprob(token_id=t, logprob=p) for t, p in zip(tokens, own, strict=True)]
    values, ids = logits.topk(most, -1)
    values = values - total[:, None]
    return [
        TokenLogprob(token_id=token, logprob=logprob, top=tuple(zip(i[:top], v[:top], strict=True)))
        for token, logprob, top, i, v in zip(
            tokens, own, tops, ids.tolist(), values.tolist(), strict=True
        )
    ]


def _log_total(logits: Tensor) -> Tensor:
    """The logarithm of each row's sum of exponentials."""
    peak = logits.amax(-1, keepdim=True)
    return (_sum((logits - peak).exp_()).log() + peak)[:, 0]


def _sum(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Each row's sum ``(rows, 1)``. torch cuts a long row that is alone into a piece for each
    thread, and rounds differently: here a row's sum is its own, whatever is beside it."""
    if x.shape[0] != 1:
        return x.sum(-1, keepdim=True, dtype=dtype)
    return torch.cat((x, x)).sum(-1, keepdim=True, dtype=dtype)[:1]


@dataclass(slots=True)
class _Cells:
    """Scattered cells ``(row, token)`` and a value for each."""

    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, row: int, tokens: Sequence[int], values: Sequence[float]) -> None:
        self.rows += [row] * len(tokens)
        self.tokens += tokens
        self.values += values

    def apply(self, logits: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        if not self.rows:
            return
        where = (
            torch.tensor(self.rows, device=logits.device),
            torch.tensor(self.tokens, device=logits.device),
        )
        values = torch.tensor(self.values, dtype=logits.dtype, device=logits.device)
        logits[where] = change(logits[where], values)


def edit(logits: Tensor, rows: Sequence[Row]) -> None:
    """Apply penalties, bias, ``min_tokens`` and guides in place."""
    repeated, shifted, banned = _Cells(), _Cells(), _Cells()
    for i, row in enumerate(rows):
        s = row.sampling
        if not row.edits:
            continue
        if s.repetition_penalty != 1:
            seen = list({*row.prompt, *row.output})
            repeated.add(i, seen, [s.repetition_penalty] * len(seen))
        shift: dict[int, float] = dict(s.logit_bias)
        if s.presence_penalty or s.frequency_penalty:
            for token, times in _counts(row.output).items():
                penalty = s.presence_penalty + s.frequency_penalty * times
                shift[token] = shift.get(token, 0.0) - penalty
        shifted.add(i, list(shift), list(shift.values()))
        if row.index < s.min_tokens and row.mask is None:
            banned.add(i, row.ends, [0.0] * len(row.ends))
    repeated.apply(logits, lambda x, p: torch.where(x > 0, x / p, x * p))
    shifted.apply(logits, torch.add)
    banned.apply(logits, lambda x, _: torch.full_like(x, -math.inf))
    forbid(logits, [row.mask for row in rows])


def _counts(tokens: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for token in tokens:
        counts[token] = counts.get(token, 0) + 1
    return counts


def _draw(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """One token a row from edited float32 logits."""
    hot = [i for i, row in enumerate(rows) if row.sampling.temperature]
    if not hot:
        return greedy(logits)[1]
    if len(hot) == len(rows):
        return _draw_hot(logits, rows)
    index = torch.tensor(hot, device=logits.device)
    tokens = greedy(logits)[1]
    tokens[index] = _draw_hot(logits[index], [rows[i] for i in hot])
    return tokens


def _draw_hot(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draws at a temperature: from few candidates where they certainly are all there are."""
    size = logits.shape[1]
    samplings = [row.sampling for row in rows]
    draws = torch.tensor(
        [uniform(row.seed, row.choice, row.index) for row in rows],
        dtype=torch.float64,
        device=logits.device,
    )
    tokens = torch.zeros(len(rows), dtype=torch.int64, device=logits.device)
    rest = list(range(len(rows)))
    few = [
        i
        for i, s in enumerate(samplings)
        if size > CANDIDATES and s.top_k <= CANDIDATES and (s.top_k or s.top_p < 1 or s.min_p)
    ]
    if few:
        index = torch.tensor(few, device=logits.device)
        part = logits if len(few) == len(rows) else logits[index]
        found, certain = _from_candidates(part, [samplings[i] for i in few], draws[index])
        tokens[index] = found
        settled = {i for i, sure in zip(few, certain.tolist(), strict=True) if sure}
        rest = [i for i in rest if i not in settled]
    if rest:
        index = torch.tensor(rest, device=logits.device)
        part = logits if len(rest) == len(rows) else logits[index]
        scaled = _cooled(part, [samplings[i] for i in rest])
        tokens[index] = _invert(restrict(scaled, [samplings[i] for i in rest]), draws[index])
    return tokens


def _cooled(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Logits over temperature, each row's largest 0: a tiny temperature must not overflow."""
    return logits.sub(logits.amax(-1, keepdim=True)).div_(
        _column([s.temperature for s in samplings], logits)
    )


def _from_candidates(
    logits: Tensor, samplings: Sequence[Sampling], draws: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens drawn among the largest logits, and which rows certainly need no others."""
    values, ids = logits.topk(CANDIDATES, -1)
    weights = _cooled(values, samplings).double().exp_()
    ks = torch.tensor([s.top_k for s in samplings], device=logits.device)[:, None]
    cut = torch.where(ks > 0, weights.gather(1, (ks - 1).clamp(min=0)), 0.0)
    weights = torch.where(weights >= cut, weights, 0.0)
    ps = _column([s.top_p for s in samplings], weights)
    mass = _sum(weights)
    wide = [i for i, s in enumerate(samplings) if s.top_p < 1 and not s.top_k]
    if wide:
        index = torch.tensor(wide, device=logits.device)
        everything = _cooled(logits[index], [samplings[i] for i in wide]).exp_()
        mass[index] = _sum(everything).double()
    running = weights.cumsum(-1)
    last = torch.searchsorted(running, ps * mass)
    enough = (last < CANDIDATES) | (ps >= 1)
    nucleus = weights.gather(1, last.clamp(max=CANDIDATES - 1))
    cut = torch.maximum(cut, torch.where(ps < 1, nucleus, 0.0))
    cut = torch.maximum(cut, _column([s.min_p for s in samplings], weights))
    # Strictly above the smallest candidate: then no equal one was left out.
    # A smallest candidate without weight has no rivals either: a guide leaves few.
    smallest = weights[:, -1:]
    certain = (enough & ((cut > smallest) | (smallest == 0)))[:, 0]
    weights = torch.where(weights >= cut, weights, 0.0)
    order = ids.argsort(-1)
    place = _invert(weights.gather(1, order), draws)
    return ids.gather(1, order.gather(1, place[:, None]))[:, 0], certain


def _invert(weights: Tensor, draws: Tensor) -> Tensor:
    """The first column at which the running sum passes ``draw`` times the whole.

    Long rows are summed in blocks of 512 first: a running sum over one block then settles it.
    """
    rows, columns = weights.shape
    if columns > 512 and columns % 512 == 0:
        blocks = weights.view(rows, -1, 512)
        sums = blocks.sum(-1).double().cumsum(-1)
        whole = sums[:, -1:]
        target = torch.minimum(draws[:, None] * whole, whole.nextafter(torch.zeros_like(whole)))
        block = torch.searchsorted(sums, target, right=True)
        before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)
        inner = blocks[torch.arange(rows, device=weights.device), block[:, 0]].double().cumsum(-1)
        end = inner[:, -1:].nextafter(torch.zeros_like(whole))
        found = torch.searchsorted(inner, torch.minimum(target - before, end), right=True)
        return (block * 512 + found)[:, 0]
    running = weights.cumsum(-1, dtype=torch.float64)
    whole = running[:, -1:]
    target = torch.minimum(draws[:, None] * whole, whole.nextafter(torch.zeros_like(whole)))
    return torch.searchsorted(running, target, right=True)[:, 0]


def restrict(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Probabilities, up to a factor a row, after top-k, top-p and min-p; ties at a cut are kept."""
    size = logits.shape[1]
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    ks = [s.top_k if 0 < s.top_k < size else size for s in samplings]
    for k in {k for k in ks if k < size}:
        index = torch.tensor([i for i, own in enumerate(ks) if own == k], device=logits.device)
        part = weights[index]
        weights[index] = _keep(part, part.topk(k, -1).values[:, -1:])
    nucleus = [i for i, s in enumerate(samplings) if s.top_p < 1]
    if nucleus:
        index = torch.tensor(nucleus, device=logits.device)
        part = weights[index]
        weights[index] = _keep(part, _nucleus(part, [samplings[i].top_p for i in nucleus]))
    if any(s.min_p for s in samplings):
        # The largest weight is 1, so that min_p is a threshold as it stands.
        weights = _keep(weights, _column([s.min_p for s in samplings], logits))
    return weights


def _keep(weights: Tensor, cut: Tensor) -> Tensor:
    """``weights`` with those below ``cut`` set to 0; ten times faster than by a boolean mask."""
    return weights.mul_(torch.ge(weights, cut, out=torch.empty_like(weights)))


def _nucleus(weights: Tensor, ps: Sequence[float]) -> Tensor:
    """The smallest weight of each row's shortest most likely tokens that reach ``p`` together."""
    goal = _sum(weights, torch.float64) * _column(ps, weights).double()
    count = min(NUCLEUS, weights.shape[1])
    while True:
        values = weights.topk(count, -1).values
        running = values.cumsum(-1, dtype=torch.float64)
        if count == weights.shape[1] or bool((running[:, -1:] >= goal).all()):
            break
        count = min(count * 16, weights.shape[1])
    last = torch.searchsorted(running, goal).clamp_(max=count - 1)
    return values.gather(1, last)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
