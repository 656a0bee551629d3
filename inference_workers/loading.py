"""From a prepared folder to an engine. Only the family that is asked for is imported."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer

from inference_workers.config import WorkerSettings
from inference_workers.engine.protocol import Engine
from inference_workers.models.manifest import Manifest

DEFAULT_SLOTS = 32

Tell = Callable[[float, str], None]
"""Told how far loading has come, 0 to 1, and what it does."""


def load_engine(manifest: Manifest, settings: WorkerSettings, tell: Tell) -> Engine:
    """Load the model.

    Raises:
        ModelError: it can't be loaded; names the model and the remedy.
    """
    if manifest.family == "echo":
        return _echo(manifest, settings)
    raise NotImplementedError(manifest.family)


def _echo(manifest: Manifest, settings: WorkerSettings) -> Engine:
    from inference_workers.engine.echo import EchoEngine, kill_self

    return EchoEngine(
        Tokenizer.from_file(str(settings.path / "tokenizer.json")),
        slots=settings.slots or DEFAULT_SLOTS,
        context_length=manifest.context_length,
        step_seconds=settings.echo_step_seconds,
        chunk=settings.echo_chunk,
        on_poison=kill_self if settings.echo_poison else None,
    )
