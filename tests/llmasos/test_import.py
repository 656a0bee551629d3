"""Importing the SDK is free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "django", "celery", "numpy", "redis", "httpx2", "tokenizers")


def loaded(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_llmasos_loads_nothing_heavy() -> None:
    assert not loaded("import llmasos") & set(HEAVY)


@pytest.mark.parametrize(
    "statement",
    [
        "from llmasos import LLMa",
        "import llmasos.client",
        "import llmasos.text.chat, llmasos.text.tokenizer",
        "import llmasos.cli",
        "import llmasos.local",
    ],
)
def test_no_part_of_it_needs_torch_or_a_portal(statement: str) -> None:
    assert not loaded(statement) & {"torch", "transformers", "django", "celery", "redis"}
