"""Likelihood of labels: pure arithmetic on token ids and logprobs."""

from __future__ import annotations

import math

import pytest

from portal.gallery.scoring import probabilities, shared_prefix


def test_the_likelier_label_gets_the_larger_share() -> None:
    ids = [[1, 5, 9, 20], [1, 5, 9, 30]]
    shares = probabilities(ids, [[-3.0, -4.0, math.log(0.6)], [-3.0, -4.0, math.log(0.2)]])
    assert shares == pytest.approx([0.75, 0.25])


def test_a_label_of_several_tokens_counts_with_all_of_them() -> None:
    ids = [[1, 5, 20, 21], [1, 5, 30]]
    shares = probabilities(ids, [[-1.0, math.log(0.5), math.log(0.5)], [-1.0, math.log(0.25)]])
    assert shares == pytest.approx([0.5, 0.5])


def test_noise_in_the_prompts_scores_changes_nothing() -> None:
    """Batches differ in the last digits of a prompt's logprobs; only the label's count."""
    ids = [[1, 5, 20], [1, 5, 30]]
    assert probabilities(ids, [[-9.0, -1.0], [-1.0, -1.0]]) == pytest.approx([0.5, 0.5])


def test_very_unlikely_labels_do_not_divide_by_zero() -> None:
    shares = probabilities([[1, 2], [1, 3]], [[-4000.0], [-4001.0]])
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] > shares[1]


def test_labels_may_begin_with_the_same_token() -> None:
    assert shared_prefix([[1, 2, 7, 8], [1, 2, 7, 9]]) == 3
    assert shared_prefix([[1, 2]]) == 2
