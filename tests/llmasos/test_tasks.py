"""Prompts by example: the text goes in once, the answer's own line comes out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.errors import InvalidRequest
from llmasos.tasks import summarize, tone, translate
from llmasos.tasks.prompt import is_chinese

ENGLISH = "Rivers carry sand to the sea."
CHINESE = "河流把沙子带到大海。"


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        (ENGLISH, False),
        (CHINESE, True),
        ("这是一篇关于 LLMasOS 的文章，介绍了 LLMasOS 的背景、核心概念、算法原理等内容。", True),
        ("The word 你好 means hello in Chinese, as every beginner learns.", False),
        ("12345", False),
        ("", False),
    ],
)
def test_it_tells_chinese_from_english(text: str, chinese: bool) -> None:
    assert is_chinese(text) is chinese


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
@pytest.mark.parametrize("task", [summarize.prompt, translate.prompt])
def test_a_prompt_holds_the_text_once_and_ends_where_the_answer_begins(task, text) -> None:  # type: ignore[no-untyped-def]
    prompt = task(text)
    assert prompt.text.count(text) == 1
    assert prompt.text == prompt.text.rstrip()
    assert prompt.text.endswith((":", "："))
    assert prompt.stop == ("\n",)
    assert text in prompt.messages()[0]["content"]


def test_the_summary_is_asked_for_in_the_texts_language() -> None:
    assert "摘要" in summarize.prompt(CHINESE).text
    assert is_chinese(summarize.prompt(CHINESE).instruction)
    assert not is_chinese(summarize.prompt(ENGLISH).text)


def test_a_translation_goes_into_the_other_language() -> None:
    assert translate.prompt(ENGLISH).text.endswith("Chinese:")
    assert translate.prompt(CHINESE).text.endswith("English:")
    assert translate.prompt(ENGLISH, "zh-en").text.endswith("English:")
    with pytest.raises(InvalidRequest, match="en-zh or zh-en"):
        translate.prompt(ENGLISH, "en-fr")


@pytest.mark.parametrize("text", ["", "  \n", "x" * 300_000])
@pytest.mark.parametrize("task", [summarize.prompt, translate.prompt, tone.question])
def test_a_text_that_is_none_is_refused(task, text) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidRequest):
        task(text)


def test_a_text_of_several_lines_cannot_end_its_example() -> None:
    prompt = summarize.prompt("One.\n\nText: Two.\nIn short: three")
    assert "One. Text: Two. In short: three" in prompt.text


@pytest.mark.parametrize("parse", [summarize.parse, translate.parse])
def test_the_answer_is_its_first_line(parse) -> None:  # type: ignore[no-untyped-def]
    assert parse("  A river.\n\nText: next") == "A river."
    assert parse("\n A river. ") == "A river."
    assert parse("") == ""


@given(scores=st.lists(st.floats(-500, 0), min_size=3, max_size=3))
def test_tones_are_probabilities(scores: list[float]) -> None:
    asked = tone.question(ENGLISH)
    found = tone.parse(asked, scores)
    assert set(found.probabilities) == set(asked.labels)
    assert math.isclose(sum(found.probabilities.values()), 1.0)
    assert found.probabilities[found.label] == max(found.probabilities.values())


def test_the_likelier_label_beyond_its_bias_wins() -> None:
    asked = tone.question(ENGLISH)
    scores = [bias - 3.0 for bias in asked.bias]
    for number, label in enumerate(asked.labels):
        better = [score + (1.0 if n == number else 0.0) for n, score in enumerate(scores)]
        assert tone.parse(asked, better).label == label
