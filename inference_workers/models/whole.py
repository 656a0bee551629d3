"""A model folder comes into being whole or not at all, and by one process at a time.

Everything is made in a hidden folder beside the target, flushed, and renamed in one step. Whoever
is killed on the way leaves nothing that looks like a model; the next one clears it away.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference_workers.errors import ModelError
from inference_workers.models.report import Report

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def require_id(model_id: str) -> None:
    """Raises ``ModelError`` where that can't be a model's name."""
    if not _ID.fullmatch(model_id):
        raise ModelError(
            f"{model_id!r} can't be a model's id: use small letters, digits, dots, dashes and "
            "underscores, at most 64.",
            code="bad_id",
        )


@contextmanager
def only_one(out: Path, progress: Report) -> Iterator[None]:
    """Wait until no other process makes ``out``, and keep others waiting meanwhile."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            progress(0.0, f"Waiting: {out.name} is being prepared by another process")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def new_folder(out: Path, model_id: str) -> Iterator[Path]:
    """An empty folder to fill; it replaces ``out`` when the block ends well.

    Raises:
        ModelError: the disk is full, or can't be written to.
    """
    partial, previous = (out.parent / f".{out.name}.{end}" for end in ("partial", "previous"))
    for leftover in (partial, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _flush(partial)
        if out.exists():
            out.rename(previous)
        partial.rename(out)
        _sync(out.parent)
    except OSError as error:
        raise ModelError(
            f"{model_id} can't be written to {out.parent}: {error.strerror}. Make room or choose "
            "another folder, and prepare it again.",
            code="disk",
        ) from error
    finally:
        for leftover in (partial, previous):
            shutil.rmtree(leftover, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
