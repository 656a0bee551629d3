"""What a stranger's machine has, and what it lacks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llmasos.errors import LLMasOSError


@dataclass(frozen=True, slots=True)
class Finding:
    """``good`` is ``None`` where something is merely not there, which may be fine."""

    what: str
    good: bool | None
    detail: str


def examine(url: str | None, key: str | None) -> Iterator[Finding]:
    """One finding after the other, quick ones first."""
    number = ".".join(map(str, sys.version_info[:3]))
    enough = sys.version_info >= (3, 11)
    yield Finding("Python", enough, number if enough else f"{number}; 3.11 or newer is needed")
    missing = [name for name in ("torch", "transformers", "safetensors") if not _has(name)]
    detail = f"torch {_version('torch')}, transformers {_version('transformers')}"
    yield Finding(
        "Models in this process",
        None if missing else True,
        f"not installed ({', '.join(missing)}); pip install 'llmasos[worker]'"
        if missing
        else detail,
    )
    yield _prepared()
    if url:
        yield _portal(url, key)


def _prepared() -> Finding:
    folder = Path(os.environ.get("DATA") or "data") / "models"
    found = sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    detail = ", ".join(found) if found else f"none in {folder}"
    return Finding("Prepared models", True if found else None, detail)


def _portal(url: str, key: str | None) -> Finding:
    from llmasos.client import Http

    try:
        http = Http(url, api_key=key, timeout=10.0)
        try:
            offered = http.models()
        finally:
            http.close()
    except LLMasOSError as error:
        return Finding("Portal", False, error.message)
    names = ", ".join(str(model.get("id")) for model in offered) or "no model yet"
    return Finding("Portal", True, f"{url} offers {names}")


def _has(package: str) -> bool:
    return _version(package) != "–"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "–"
