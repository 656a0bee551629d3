"""How a review sounds, by likelihood: which label would the model write next?

The model generates nothing. Each label is scored as the continuation of a prompt of examples, and
the scores become probabilities. What the model would write whatever the review says is subtracted
(contextual calibration, arXiv 2102.09690). ``BIAS`` was measured with the default model, Gemma 3
270M in bfloat16, as the mean score over 25 English and Chinese reviews of all three tones: with it
22 of them are labelled as a person would, without it 14.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmasos.tasks.prompt import one_paragraph

LABELS = ("positive", "negative", "mixed")

_EXAMPLES = (
    ("The soup was cold and the waiter ignored us.", "negative"),
    ("它用了三天就坏了，客服也不回信。", "negative"),
    ("A wonderful book, I read it in one evening.", "positive"),
    ("味道很好，服务热情，下次还会再来。", "positive"),
    ("The room was lovely, but the street is loud all night.", "mixed"),
    ("画面漂亮，可是故事很无聊。", "mixed"),
    ("Cheap plastic, it stopped working within a week.", "negative"),
    ("又贵又难吃，千万别去。", "negative"),
    ("My children play with it every day, thank you!", "positive"),
    ("孩子特别喜欢，做工也精致。", "positive"),
    ("Nice colours, but it is much too small.", "mixed"),
    ("功能很多，但是太重了。", "mixed"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """Score each of ``continuations`` after ``prompt``; ``labels`` are what they mean."""

    prompt: str
    continuations: tuple[str, ...]
    labels: tuple[str, ...]
    bias: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tone:
    """The likeliest label, and every label's probability; they add up to one."""

    label: str
    probabilities: Mapping[str, float]


BIAS = (0.0, 1.52, 1.32)
"""Natural logarithms, one for each of ``LABELS``; only their differences matter."""


def question(text: str) -> Question:
    """What to score for a review."""
    line = one_paragraph(text)
    shown = "".join(f"Review: {review}\nTone: {label}\n\n" for review, label in _EXAMPLES)
    return Question(
        prompt=f"{shown}Review: {line}\nTone:",
        continuations=tuple(f" {label}" for label in LABELS),
        labels=LABELS,
        bias=BIAS,
    )


def parse(asked: Question, scores: Sequence[float]) -> Tone:
    """Probabilities from the continuations' log-probabilities, in the question's order."""
    totals = [score - bias for score, bias in zip(scores, asked.bias, strict=True)]
    best = max(totals)
    weights = [math.exp(total - best) for total in totals]
    whole = math.fsum(weights)
    shares = {label: weight / whole for label, weight in zip(asked.labels, weights, strict=True)}
    return Tone(max(shares, key=lambda label: shares[label]), shares)
