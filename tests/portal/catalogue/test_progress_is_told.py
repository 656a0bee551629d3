"""What preparing a model does now is said in the reader's language, though its process has none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.translation import override

from portal.catalogue.templatetags.catalogue import megabytes, told

ENGINE_ROOM = Path(__file__).resolve().parents[3] / "inference_workers"
TELLING = {"progress", "_progress", "part", "writing"}


def sentences() -> Iterator[str]:
    """All that is handed to a report, ``NAME`` for what is filled in."""
    for path in [*sorted((ENGINE_ROOM / "models").glob("*.py")), ENGINE_ROOM / "measure.py"]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) != 2:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            said = node.args[1]
            if name not in TELLING:
                continue
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                yield said.value
            if isinstance(said, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "NAME" for p in said.values)
                yield "".join(map(str, parts))


SAID = sorted({said for said in sentences() if "as it was prepared" not in said})
"""That one ends ``models check``, which only the console shows."""


def test_they_are_found() -> None:
    assert {"Fitting the weights", "Fetching NAME", "NAME is prepared"} <= set(SAID)
    assert len(SAID) > 15


@pytest.mark.parametrize("said", SAID)
def test_each_has_chinese(said: str) -> None:
    with override("zh-hans"):
        chinese = told(said)
    assert chinese != said
    assert ("NAME" in said) == ("NAME" in chinese)
    with override("en"):
        assert told(said) == said


def test_a_new_sentence_is_shown_as_it_is() -> None:
    with override("zh-hans"):
        assert told("Polishing the weights") == "Polishing the weights"
        assert told("") == ""


def test_sizes_are_those_of_the_command_line() -> None:
    assert [megabytes(n) for n in (253_700_000, 550_599_400, 1_340_000_000)] == [
        "254 MB", "551 MB", "1.3 GB",
    ]  # fmt: skip
