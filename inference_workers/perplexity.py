"""How well a model foretells a fixed text: the figure by which weight formats are compared.

A text is cut in windows that know nothing of each other. The figure is the exponential of the mean
negative log-likelihood of every token but a window's first, through the engine's own model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from inference_workers.engine.engine import BLOCK_SIZE
from inference_workers.engine.request import Request
from inference_workers.engine.runner import Runner, Work
from inference_workers.engine.sampler import score
from inference_workers.models.base import CausalModel
from inference_workers.models.manifest import Manifest

WINDOW = 512
ROWS = 64
"""Rows turned into logits at a time."""
TEXTS = Path(__file__).with_name("texts")
"""The project's own texts, by language: ``en.txt`` and ``zh.txt``. Changing one makes every figure
that was measured before incomparable."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Over ``tokens`` tokens; ``mean`` is in nats a token."""

    mean: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.mean)


def languages() -> list[str]:
    return sorted(path.stem for path in TEXTS.glob("*.txt"))


def windows(
    language: str, tokenizer: Tokenizer, manifest: Manifest, count: int | None = None
) -> list[list[int]]:
    """``count`` whole windows spread evenly over the text, or all of it; each begins as the model's
    own texts do."""
    text = (TEXTS / f"{language}.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    first = (
        [manifest.bos_token_id] if manifest.add_bos and manifest.bos_token_id is not None else []
    )
    size = min(WINDOW, manifest.context_length) - len(first)
    cut = [first + ids[at : at + size] for at in range(0, len(ids), size)]
    whole = len(ids) // size
    if count is None or count > whole:
        return cut
    return [cut[i * whole // count] for i in range(count)]


def measure(
    model: CausalModel,
    texts: Sequence[Sequence[int]],
    told: Callable[[int], None] = lambda tokens: None,
) -> Likelihood:
    """The likelihood of ``texts``, a window at a time; ``told`` hears of each one's tokens."""
    blocks = -(-max(map(len, texts)) // BLOCK_SIZE)
    runner = Runner(model, blocks=blocks, block_size=BLOCK_SIZE)
    total, tokens = 0.0, 0
    for ids in texts:
        with torch.inference_mode():
            total -= sum(_scores(runner, list(ids), list(range(1, blocks + 1))))
        tokens += len(ids) - 1
        told(len(ids))
    return Likelihood(total / max(1, tokens), tokens)


def _scores(runner: Runner, ids: list[int], blocks: list[int]) -> Iterator[float]:
    """The log-likelihood of each token but the first."""
    runner.clear(blocks)
    request = Request(job="", choice=0, tokens=ids, prompt=len(ids), blocks=blocks)
    states = runner.run([Work(request, len(ids), range(len(ids) - 1), sampled=False)])
    for start in range(0, len(ids) - 1, ROWS):
        rows = states[start : start + ROWS]
        wanted = ids[start + 1 : start + 1 + len(rows)]
        for found in score(runner.model.logits(rows).float(), wanted, [0] * len(rows)):
            yield found.logprob
