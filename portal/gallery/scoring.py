"""How likely a model finds each of some labels, from the scores of prompt + label.

Pure: token ids and logprobs in, log-likelihoods out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all of ``sequences`` begin with."""
    together = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, together))


def label_scores(ids: Sequence[Sequence[int]], logprobs: Sequence[Sequence[float]]) -> list[float]:
    """The log-likelihood of each label, up to a constant that all of them share.

    ``ids[k]`` are the tokens of the prompt with label ``k``; ``logprobs[k][i]`` scores token
    ``i + 1``, as the first has nothing before it. What all labels share, the prompt above all,
    adds the same to each and is left out; what remains is the label.
    """
    start = max(shared_prefix(ids), 1)
    return [math.fsum(scores[start - 1 :]) for scores in logprobs]
