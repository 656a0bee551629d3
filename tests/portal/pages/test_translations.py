"""Chinese is complete: the catalogue says something for everything that pages say."""

from __future__ import annotations

import gettext
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CATALOGUE = ROOT / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
TRANSLATE = re.compile(r"""{%\s*translate\s+(?:"([^"]*)"|'([^']*)')""")


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> gettext.GNUTranslations:
    compiled = tmp_path_factory.mktemp("locale") / "django.mo"
    subprocess.run(["msgfmt", "--check-format", "-o", compiled, CATALOGUE], check=True)
    with compiled.open("rb") as file:
        return gettext.GNUTranslations(file)


def _said() -> list[tuple[Path, str]]:
    found = []
    for path in sorted((ROOT / "templates").rglob("*.html")):
        for double, single in TRANSLATE.findall(path.read_text(encoding="utf-8")):
            found.append((path, (double or single).replace("%", "%%")))
    return found


def test_every_sentence_of_the_templates_has_chinese(chinese: gettext.GNUTranslations) -> None:
    missing = [(path.name, text) for path, text in _said() if chinese.gettext(text) == text]
    assert missing == []


def test_placeholders_survive_translation(chinese: gettext.GNUTranslations) -> None:
    names = re.compile(r"{\w+}")
    for _, text in _said():
        assert sorted(names.findall(text)) == sorted(names.findall(chinese.gettext(text)))
