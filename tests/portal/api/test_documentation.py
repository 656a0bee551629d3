"""The examples in docs/api/, run as they stand against a running system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ENCODER, MODEL, REPOSITORY, Running

PAGES = sorted(Path(REPOSITORY, "docs/api").glob("*.md"))
EXAMPLE = re.compile(r"<!-- tested -->\n```(bash|python)\n(.*?)```", re.DOTALL)
EXAMPLES = [found for page in PAGES for found in EXAMPLE.findall(page.read_text())]


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_the_example_works(
    running: Running, api_key: str, request: pytest.FixtureRequest, language: str, code: str
) -> None:
    guided = "tools=" in code  # which the echo model can't be
    model = request.getfixturevalue("llama") if guided else MODEL
    code = code.replace("gemma-3-270m", model)
    if ENCODER in code:
        request.getfixturevalue("encoder")
    command = ["bash", "-ec", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"LLMASOS_URL": running.url, "LLMASOS_API_KEY": api_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not guided or "name='weather'" in done.stdout
    assert not re.search(r'"error": ?{', done.stdout)


def test_there_are_examples_in_both_languages() -> None:
    assert {language for language, _ in EXAMPLES} == {"bash", "python"}
