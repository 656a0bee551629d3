"""Preparing and checking models in a process of their own: torch never enters the portal.

``python -m inference_workers prepare | quantize | measure | check`` writes JSON lines: progress,
then one result or one error. This module starts it, follows it, and keeps the model's row true.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import get, prepared_folder
from portal.catalogue.services import (
    CatalogueError,
    begin_preparing,
    fail_preparing,
    finish_preparing,
    mark_broken,
    touch,
)

Progress = Callable[[float, str], None]
HEARTBEAT_S = 2.0
STOP_S = 5.0


class PreparationFailed(CatalogueError):
    """``code`` is the engine room's, for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


def prepare(
    *, model_id: str, force: bool = False, progress: Progress, actor: User | None = None
) -> CatalogueModel:
    """Make the model's folder, or find it ready, and note what it is.

    ``progress`` is called with a fraction and a sentence, at least every ``HEARTBEAT_S`` seconds.
    Raises ``UnknownModel``, ``Busy`` or ``PreparationFailed``; interrupting it is harmless.
    """
    model = get(model_id)
    begin_preparing(model=model)
    folder = prepared_folder(model)
    if force:
        (folder / "manifest.json").unlink(missing_ok=True)  # without it, the folder is no model
    with under_way(model=model, progress=progress) as told:
        manifest = follow(making(model), told)
        finish_preparing(model=model, manifest=manifest, actor=actor)
    return get(model_id)


def making(model: CatalogueModel) -> list[str]:
    """The engine room's command that makes the model's folder."""
    out = ["--id", model.id, "--out", str(prepared_folder(model))]
    if model.origin is None:
        return ["prepare", "--source", model.source, "--kind", model.kind, *out]
    return [
        *("quantize", "--path", str(prepared_folder(model.origin)), "--format", model.format),
        *out,
    ]


@contextmanager
def under_way(*, model: CatalogueModel, progress: Progress) -> Iterator[Progress]:
    """Keep the row of a model that is being prepared true: signs of life, and why it failed."""

    def told(fraction: float, message: str) -> None:
        touch(model=model, progress=fraction, message=message)
        progress(fraction, message)

    try:
        yield told
    except PreparationFailed as error:
        fail_preparing(model=model, error=str(error))
        raise
    except BaseException:
        fail_preparing(model=model, error="Preparing was interrupted. Run it again.")
        raise


def check(*, model_id: str, progress: Progress) -> CatalogueModel:
    """Read the prepared files again. Raises ``UnknownModel`` or ``PreparationFailed``, and then the
    model takes no more jobs."""
    model = get(model_id)
    try:
        manifest = follow(["check", "--path", str(prepared_folder(model))], progress)
        if model.digest and manifest["digest"] != model.digest:
            raise PreparationFailed(
                f"{model.id} is not what the catalogue says. Run: manage.py models prepare "
                f"{model.id} --force",
                code="digest_mismatch",
            )
    except PreparationFailed as error:
        mark_broken(model=model, error=str(error))
        raise
    return model


def follow(arguments: list[str], progress: Progress, *, result: str = "manifest") -> dict[str, Any]:
    """Run the engine room's command to its end; its ``result``. Raises ``PreparationFailed``."""
    last: dict[str, Any] = {}
    fraction, message = 0.0, ""
    with _process(arguments) as process:
        for line in _lines(process):
            if line is not None:
                last = _parse(line) or last
                fraction = float(last.get("progress", fraction))
                message = str(last.get("message", message))
            progress(fraction, message)
        code = process.wait()
    if isinstance(last.get(result), dict):
        found: dict[str, Any] = last[result]
        return found
    error = last.get("error") or {}
    raise PreparationFailed(
        str(error.get("message") or f"The process ended with {code} and without a word."),
        code=str(error.get("code") or "crashed"),
    )


@contextmanager
def _process(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a child that does not outlive us, unless we are killed outright."""
    process = subprocess.Popen(  # noqa: S603  (our own program; arguments, never a shell)
        [sys.executable, "-m", "inference_workers", *arguments],
        stdout=subprocess.PIPE,
        cwd=settings.BASE_DIR,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """Lines as they come, and ``None`` whenever there was none for ``HEARTBEAT_S`` seconds."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not ready.select(HEARTBEAT_S):
                yield None
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
    if rest:
        yield rest


def _parse(line: bytes) -> dict[str, Any] | None:
    """A JSON object, or nothing: libraries in the child may print what they like."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
