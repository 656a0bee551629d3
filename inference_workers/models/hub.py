"""Models from a hub: safetensors only, pinned to the commit that the name stood for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference_workers.errors import ModelError
from inference_workers.models.folder import (
    CONFIG,
    INDEX,
    MAX_SIZES,
    PICKLES,
    POOLING,
    TOKENIZER,
)
from inference_workers.models.resources import require_disk

TIMEOUT_S = 15.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def parse_source(text: str) -> tuple[str, str | None]:
    """``org/name[@revision]`` in its two parts."""
    name, _, revision = text.partition("@")
    if not _NAME.fullmatch(name) or ".." in name:
        raise ModelError(
            f"{text!r} is not a hub name. Write org/name, or org/name@revision.", code="bad_source"
        )
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ModelError(f"{revision!r} is not a revision of {name}.", code="bad_source")
    return name, revision or None


def download(text: str, folder: Path, progress: Callable[[float, str], None]) -> str:
    """Fetch a model's files into ``folder``; returns the exact commit.

    Raises:
        ModelError: no such model, no access, no network, no safetensors, too little disk.
    """
    from huggingface_hub import HfApi, hf_hub_download

    name, revision = parse_source(text)
    try:
        progress(0.0, f"Asking the hub for {name}")
        info = HfApi().model_info(name, revision=revision, timeout=TIMEOUT_S, files_metadata=True)
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise ModelError(f"The hub names no commit for {name}.", code="hub_unreachable")
        wanted = choose_files(name, {s.rfilename: int(s.size or 0) for s in info.siblings or []})
        total = sum(wanted.values()) or 1
        require_disk(folder, total, name)
        done = 0
        for file, size in sorted(wanted.items(), key=lambda item: item[1]):
            progress(done / total, f"Fetching {file}")
            hf_hub_download(name, file, revision=commit, local_dir=folder, etag_timeout=TIMEOUT_S)
            done += size
    except ModelError:
        raise
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        raise _hub_error(name, revision, error) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    progress(1.0, f"Fetched {name}")
    return commit


def choose_files(name: str, files: dict[str, int]) -> dict[str, int]:
    """The files worth fetching, with their sizes in bytes: nothing that could run."""
    if CONFIG not in files:
        raise ModelError(
            f"{name} has no {CONFIG} on the hub: it is not a model that can be prepared.",
            code="missing_file",
        )
    weights = {n: s for n, s in files.items() if n.endswith(".safetensors") and "/" not in n}
    if not weights:
        pickled = any(Path(n).suffix in PICKLES for n in files)
        raise ModelError(
            f"{name} has {'pickled weights only' if pickled else 'no weights'} on the hub. Choose "
            "a model, or a revision of it, that has safetensors.",
            code="pickle" if pickled else "missing_file",
        )
    if INDEX not in files and "model.safetensors" in weights:
        weights = {"model.safetensors": weights["model.safetensors"]}
    small = {n: s for n, s in files.items() if n in MAX_SIZES}
    for file, size in small.items():
        if size > MAX_SIZES[file]:
            raise ModelError(f"{name}'s {file} has {size:,} bytes: too many.", code="too_large")
    if (pooling := f"{POOLING}/{CONFIG}") in files:
        small[pooling] = files[pooling]
    if TOKENIZER in small:
        for older in ("tokenizer.model", "vocab.json", "merges.txt"):
            small.pop(older, None)
    return small | weights


def _hub_error(name: str, revision: str | None, error: Exception) -> ModelError:
    from huggingface_hub import errors

    cases: list[tuple[type[Any], str, str]] = [
        (
            errors.GatedRepoError,
            "hub_gated",
            f"{name} asks for its licence to be accepted. Accept it on the hub's page, set "
            "HF_TOKEN, and prepare it again.",
        ),
        (
            errors.RepositoryNotFoundError,
            "hub_unknown",
            f"The hub has no public model {name}. Check the name; for a private one, set HF_TOKEN.",
        ),
        (
            errors.RevisionNotFoundError,
            "hub_unknown",
            f"{name} has no revision {revision!r}. Leave it out, or use a commit from its page.",
        ),
    ]
    for kind, code, message in cases:
        if isinstance(error, kind):
            return ModelError(message, code=code)
    return ModelError(
        f"{name} can't be fetched: the model hub can't be reached ({type(error).__name__}). Check "
        "the network or HF_ENDPOINT, or prepare the model from a local folder or GGUF file.",
        code="hub_unreachable",
    )
