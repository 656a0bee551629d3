"""Likelihood of labels: pure arithmetic on token ids and logprobs."""

from __future__ import annotations

import pytest

from portal.gallery.scoring import label_scores, shared_prefix


def test_a_label_of_several_tokens_counts_with_all_of_them() -> None:
    ids = [[1, 5, 20, 21], [1, 5, 30]]
    assert label_scores(ids, [[-1.0, -0.5, -0.25], [-1.0, -2.0]]) == [-0.75, -2.0]


def test_noise_in_the_prompts_scores_changes_nothing() -> None:
    """Batches differ in the last digits of a prompt's logprobs; only the label's count."""
    ids = [[1, 5, 20], [1, 5, 30]]
    assert label_scores(ids, [[-9.0, -1.0], [-1.0, -1.0]]) == pytest.approx([-1.0, -1.0])


def test_labels_may_begin_with_the_same_token() -> None:
    assert shared_prefix([[1, 2, 7, 8], [1, 2, 7, 9]]) == 3
    assert label_scores([[1, 7, 8], [1, 7, 9]], [[-3.0, -1.0], [-3.0, -2.0]]) == [-1.0, -2.0]


def test_a_prompt_of_one_token_has_no_score_of_its_own() -> None:
    assert label_scores([[2, 5], [3, 5]], [[-1.0], [-2.0]]) == [-1.0, -2.0]
