"""Texts that a model writes itself, what its projections see in them, and how far another strays.

Nothing is read but openings of a few words in English and in Chinese: the texts by which formats
are judged stay unseen. The same model writes the same texts each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from inference_workers.layers.activation import Gate
from inference_workers.layers.attention import allocate, kernels_attend
from inference_workers.layers.batch import Segment, build
from inference_workers.layers.linear import Linear
from inference_workers.models.base import CausalModel
from inference_workers.models.manifest import Manifest

OPENINGS = {
    "en": (
        "The history of", "In the morning, she", "How does a", "The company said that",
        "1. First, open the", "Researchers have found", "Dear Sir or Madam,", "def ",
    ),
    "zh": (
        "中国的历史", "今天早上，她", "如何", "公司宣布",
        "第一步，", "研究人员发现", "尊敬的先生：", "问：",
    ),
}  # fmt: skip
EACH = 2
"""Texts from each opening."""
LENGTH = 256
"""Tokens of a text, its opening included."""
HELD_OUT = 4
"""Each so many-th text is kept for judging, and never fitted to."""
SKIPPED = 16
"""First tokens of a text that are not judged: with so little before it a model merely guesses."""
EVERY = 2
"""Each so many-th token is judged: neighbours say much the same."""
SEED = 4
BLOCK_SIZE, ROWS = 16, 64
BELOW = 1 - 1e-12
"""So that no rounding of a random number reaches the sum of all chances."""
BRANCH = 512
"""Tokens of the vocabulary that are drawn as one, before one of them is."""

Text = list[int]


@dataclass(frozen=True, slots=True)
class Texts:
    """``fitted`` for fitting, ``held`` for judging, by language."""

    fitted: list[Text]
    held: dict[str, list[Text]]


def write_texts(
    model: CausalModel,
    tokenizer: Tokenizer,
    manifest: Manifest,
    told: Callable[[float], None] = lambda fraction: None,
) -> Texts:
    """``EACH`` texts from each opening, sampled at temperature 1; ``told`` hears how far."""
    first = (
        [manifest.bos_token_id] if manifest.add_bos and manifest.bos_token_id is not None else []
    )
    languages, texts = [], []
    for language, openings in OPENINGS.items():
        for opening in openings:
            ids = tokenizer.encode(opening, add_special_tokens=False).ids
            kept = [*first, *(i for i in ids if i < model.shape.vocabulary)] or [0]
            texts += [list(kept) for _ in range(EACH)]
            languages += [language] * EACH
    _continue(model, texts, min(LENGTH, manifest.context_length), told)
    found = Texts([], {language: [] for language in OPENINGS})
    for number, (language, text) in enumerate(zip(languages, texts, strict=True)):
        held = number % HELD_OUT == HELD_OUT - 1
        (found.held[language] if held else found.fitted).append(text)
    return found


def _continue(
    model: CausalModel, texts: Sequence[Text], length: int, told: Callable[[float], None]
) -> None:
    """Write each on until all have ``length`` tokens, then cut them there."""
    draw = torch.Generator().manual_seed(SEED)
    room = max(map(len, texts)) + length
    stores, tables = _stores(model, [room] * len(texts))
    done = [0] * len(texts)
    while (shortest := min(map(len, texts))) < length:
        told(shortest / length)
        segments = [
            Segment(text[at:], at, table, [len(text) - at - 1])
            for text, at, table in zip(texts, done, tables, strict=True)
        ]
        done = [len(text) for text in texts]
        with torch.inference_mode():
            logits = model.logits(_forward(model, segments, stores)).float()
            for text, token in zip(texts, _drawn(logits, draw), strict=True):
                text.append(token)
    for text in texts:
        del text[length:]


def _drawn(logits: Tensor, draw: torch.Generator) -> list[int]:
    """A token for each row of ``(rows, vocabulary)``. A branch is drawn and then one of its tokens:
    running sums over the whole of a large vocabulary would take longer than the model."""
    rows, vocabulary = logits.shape
    logits = torch.nn.functional.pad(logits, (0, -vocabulary % BRANCH), value=float("-inf"))
    chances = (logits - logits.amax(-1, keepdim=True)).exp_().view(rows, -1, BRANCH)
    branches = chances.sum(-1).double().cumsum(-1)
    point = torch.rand((rows, 1), generator=draw, dtype=torch.float64) * branches[:, -1:] * BELOW
    branch = torch.searchsorted(branches, point, right=True).clamp_(max=branches.shape[1] - 1)
    before = torch.where(branch > 0, branches.gather(1, (branch - 1).clamp(min=0)), 0.0)
    inside = chances[torch.arange(rows), branch[:, 0]].double().cumsum(-1)
    token = torch.searchsorted(inside, (point - before).clamp_(min=0), right=True)
    # Sums in another order may end a hair below the point: the branch's last token with a chance.
    last = BRANCH - 1 - (inside.diff(prepend=inside[:, :1] * 0) > 0).flip(-1).int().argmax(-1)
    token = torch.minimum(token, last[:, None])
    return [int(i) for i in (branch * BRANCH + token)[:, 0]]


def _stores(model: CausalModel, lengths: Sequence[int]) -> tuple[Any, list[list[int]]]:
    """Room for texts of these lengths, and each one's blocks."""
    tables, at = [], 1
    for length in lengths:
        needed = -(-length // BLOCK_SIZE)
        tables.append(list(range(at, at + needed)))
        at += needed
    shape = model.shape
    stores = allocate(
        shape.layers,
        blocks=at,
        block_size=BLOCK_SIZE,
        dtype=shape.cache_dtype,
        device=shape.device,
    )
    return stores, tables


def _forward(model: CausalModel, segments: Sequence[Segment], stores: Any) -> Tensor:
    shape = model.shape
    batch = build(
        segments,
        block_size=BLOCK_SIZE,
        windows=shape.windows,
        dtype=shape.dtype,
        device=shape.device,
        kernels=kernels_attend(shape.layers, shape.dtype, shape.device),
    )
    return model.forward(batch, stores)


def read(model: CausalModel, texts: Sequence[Text], wanted: Callable[[Text], range]) -> Tensor:
    """States ``(rows, size)`` after the ``wanted`` tokens of all texts, read at once."""
    stores, tables = _stores(model, [len(text) for text in texts])
    segments = [
        Segment(text, 0, table, wanted(text)) for text, table in zip(texts, tables, strict=True)
    ]
    with torch.inference_mode():
        return _forward(model, segments, stores)


def _judged(text: Text) -> range:
    return range(min(SKIPPED, len(text) - 1), len(text), EVERY)


class Yardstick:
    """How far another model's predictions stray from ``model``'s on its own held-out texts."""

    def __init__(self, model: CausalModel, texts: Texts) -> None:
        self._logits = model.logits
        self._held = texts.held
        self._states = {name: read(model, held, _judged) for name, held in texts.held.items()}

    def strays(self, other: CausalModel) -> float:
        """The mean Kullback-Leibler divergence in nats a token, of the worse language: about the
        share by which ``other``'s perplexity is higher on such text."""
        return max(self._mean(other, language) for language in self._held)

    @torch.inference_mode()
    def _mean(self, other: CausalModel, language: str) -> float:
        ours, theirs = self._states[language], read(other, self._held[language], _judged)
        total = 0.0
        for start in range(0, len(ours), ROWS):
            rows = slice(start, start + ROWS)
            truth = self._logits(ours[rows]).float().log_softmax(-1)
            guess = other.logits(theirs[rows]).float().log_softmax(-1)
            total += float((truth.exp() * (truth - guess)).sum())
        return total / max(1, len(ours))


Seen = Callable[[Linear, Tensor], Linear]


def watch(model: CausalModel, texts: Sequence[Text], seen: Seen) -> None:
    """Read the texts through the model, giving ``seen`` each projection and all of its inputs
    ``(rows, inputs)``, in the order of computing. What ``seen`` answers is computed with, and stays
    in the model: later inputs are as it makes them."""
    for owner, name, linear in projections(model):
        setattr(owner, name, _Watched(linear, owner, name, seen))
    read(model, texts, lambda text: range(len(text) - 1, len(text)))


class _Watched:
    def __init__(self, linear: Linear, owner: object, name: str, seen: Seen) -> None:
        self._linear, self._owner, self._name, self._seen = linear, owner, name, seen

    def forward(self, x: Tensor) -> Tensor:
        return self._replaced(x).forward(x)

    def gated(self, x: Tensor, gate: Gate) -> Tensor:
        return self._replaced(x).gated(x, gate)

    def _replaced(self, x: Tensor) -> Linear:
        linear = self._seen(self._linear, x)
        setattr(self._owner, self._name, linear)
        return linear


def projections(model: CausalModel) -> Iterator[tuple[object, str, Linear]]:
    """The model's projections and where they are kept: by the model, or by one of its layers."""
    for owner in [model, *(x for v in vars(model).values() if isinstance(v, list) for x in v)]:
        for name, value in list(vars(owner).items()):
            if isinstance(value, Linear):
                yield owner, name, value
