"""The worked examples are what the page's script expects, in the reader's language."""

from __future__ import annotations

import json

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import translation

from portal.playground.examples import EXAMPLES


def _titles(language: str) -> list[str]:
    with translation.override(language):
        shown = json.loads(json.dumps(EXAMPLES, cls=DjangoJSONEncoder))
    return [example["title"] for example in shown]


def test_examples_are_read_in_the_language_of_the_page() -> None:
    assert _titles("en")[0] == "Translate by example"
    assert _titles("zh-hans")[0] == "用例子教它翻译"


def test_every_example_ends_where_the_model_goes_on() -> None:
    for language in ("en", "zh-hans"):
        with translation.override(language):
            for example in EXAMPLES:
                assert not str(example["prompt"]).endswith(" ")
                assert example["mode"] == "completion"
