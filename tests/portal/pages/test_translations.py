"""Chinese is complete: the catalogue says something for everything that pages and letters say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import polib
import pytest
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[3]
CATALOGUE = ROOT / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
CALLS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy"}
TEXT = r"""u?('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
CALL = re.compile(rf"\b(n|p)?gettext\(\s*{TEXT}(?:\s*,\s*{TEXT})?|\b_\(\s*{TEXT}")
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|{\w*}|%[sd]")

Said = tuple[str, str]
"""A context, mostly none, and a text."""


def _in_templates() -> Iterator[tuple[Path, Said]]:
    for path in sorted((ROOT / "templates").rglob("*")):
        if path.suffix not in (".html", ".txt"):
            continue
        for kind, first, second, bare in CALL.findall(templatize(path.read_text("utf-8"))):
            text = ast.literal_eval(bare or first)
            yield path, (text, ast.literal_eval(second)) if kind == "p" else ("", text)


def _in_code() -> Iterator[tuple[Path, Said]]:
    for path in sorted((ROOT / "portal").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if name in CALLS and texts and isinstance(texts[0], str):
                in_context = name.startswith("pgettext")
                yield path, (texts[0], str(texts[1])) if in_context else ("", texts[0])


SAID = [*_in_templates(), *_in_code()]


@pytest.fixture(scope="module")
def chinese() -> dict[Said, polib.POEntry]:
    found = polib.pofile(str(CATALOGUE), check_for_duplicates=True)
    return {(entry.msgctxt or "", entry.msgid): entry for entry in found}


def test_it_looks_at_pages_letters_and_code() -> None:
    assert {path.suffix for path, _ in SAID} == {".html", ".txt", ".py"}
    assert len(SAID) > 500


def test_everything_that_is_said_has_chinese(chinese: dict[Said, polib.POEntry]) -> None:
    missing = {
        (path.name, text[1])
        for path, text in SAID
        if text[1] and (text not in chinese or not chinese[text].translated())
    }
    assert missing == set()


def test_placeholders_survive_translation(chinese: dict[Said, polib.POEntry]) -> None:
    for entry in chinese.values():
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            if text:
                said = entry.msgid_plural or entry.msgid
                assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(said)), text
