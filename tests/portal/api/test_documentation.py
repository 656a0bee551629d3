"""The examples in docs/api/README.md, run as they stand against a running system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import MODEL, REPOSITORY, Running

PAGE = Path(REPOSITORY, "docs/api/README.md").read_text()
EXAMPLES = re.findall(r"<!-- tested -->\n```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_the_example_works(running: Running, api_key: str, language: str, code: str) -> None:
    code = code.replace("gemma-3-270m", MODEL)
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
    assert '"error"' not in done.stdout


def test_the_page_has_examples_in_both_languages() -> None:
    assert {language for language, _ in EXAMPLES} == {"bash", "python"}
