"""The quality column: perplexity for each weight format, where there is an instrument for it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path


def perplexities(folder: Path, *, quick: bool) -> dict[str, float]:
    """Perplexity on the fixed texts by weight format; empty without ``benchmarks.perplexity``.

    That module's ``table(folder, quick=...)`` answers ``{format: perplexity}``.
    """
    if importlib.util.find_spec("benchmarks.perplexity") is None:
        return {}
    module = importlib.import_module("benchmarks.perplexity")
    return {str(name): float(value) for name, value in module.table(folder, quick=quick).items()}
