"""From a prepared folder to an engine. Only the family that is asked for is imported."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Tokenizer

from inference_workers.config import WorkerSettings
from inference_workers.engine.protocol import Engine
from inference_workers.footprint import give_back
from inference_workers.models.manifest import Manifest

DEFAULT_SLOTS = 32
SLOTS_PER_LANE = 8
"""A worker of 32 slots has 4 lanes; one of few slots has none, where a lane would be a large part
of its speed."""
CACHE_SHARE = 4
LEAST_KV_MEMORY = 16 << 20
Tell = Callable[[float, str], None]
"""Told how far loading has come, 0 to 1, and what it does."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine, the device that it runs on, in torch's words, and how many of the requests that it
    can run together are ``lanes`` beside the slots."""

    engine: Engine
    device: str = "cpu"
    lanes: int = 0


def _room(settings: WorkerSettings) -> tuple[int, int]:
    """Slots, and lanes beside them."""
    slots = settings.slots or DEFAULT_SLOTS
    return slots, slots // SLOTS_PER_LANE


def settle() -> None:
    """Spare what is loaded by now from garbage collections: it stays as long as the process, and to
    look through it takes longer than a step (76 ms beside 62). What only loading took goes."""
    gc.collect()
    gc.freeze()
    give_back()


def load_engine(manifest: Manifest, settings: WorkerSettings, tell: Tell) -> Loaded:
    """Load the model.

    Raises:
        ModelError: it can't be loaded; names the model and the remedy.
    """
    if manifest.family == "echo":
        return _echo(manifest, settings)
    if manifest.kind == "embedding":
        return _encoder(manifest, settings, tell)
    return _torch(manifest, settings, tell)


def _echo(manifest: Manifest, settings: WorkerSettings) -> Loaded:
    from inference_workers.engine.echo import EchoEngine, kill_self

    slots, lanes = _room(settings)
    engine = EchoEngine(
        Tokenizer.from_file(str(settings.path / "tokenizer.json")),
        slots=slots + lanes,
        context_length=manifest.context_length,
        step_seconds=settings.echo_step_seconds,
        chunk=settings.echo_chunk,
        on_poison=kill_self if settings.echo_poison else None,
    )
    return Loaded(engine, lanes=lanes)


def _room_for_cache(model_id: str, device: str) -> int:
    """Bytes for keys and values: the usual amount, or a quarter of what is free where that is less,
    so that no load however long ends with a process killed for memory.

    Raises:
        ModelError: that is too little to serve anybody.
    """
    from inference_workers.engine.engine import DEFAULT_KV_MEMORY
    from inference_workers.models.resources import available_memory, require_memory

    free = available_memory() if device == "cpu" else None
    if free is None:
        return DEFAULT_KV_MEMORY
    require_memory(CACHE_SHARE * LEAST_KV_MEMORY, f"The cache of {model_id}")
    return min(DEFAULT_KV_MEMORY, free // CACHE_SHARE)


def _encoder(manifest: Manifest, settings: WorkerSettings, tell: Tell) -> Loaded:
    tell(0.0, "starting torch")
    import torch

    from inference_workers.engine.encoder import EncoderEngine
    from inference_workers.models.loader import load

    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tell(0.3, "reading weights")
    model, _ = load(settings.path, device=device)
    engine = EncoderEngine(
        model,
        slots=settings.slots or DEFAULT_SLOTS,
        context_length=manifest.context_length,
        digest=manifest.digest,
    )
    return Loaded(engine, device)


def _torch(manifest: Manifest, settings: WorkerSettings, tell: Tell) -> Loaded:
    tell(0.0, "starting torch")
    import torch

    from inference_workers.engine.engine import TorchEngine
    from inference_workers.models.derived import read_vocabulary
    from inference_workers.models.loader import load

    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tell(0.2, "reading weights")
    model, _ = load(settings.path, device=device)
    tell(0.9, "making room for the cache")
    slots, lanes = _room(settings)
    engine = TorchEngine(
        model,
        read_vocabulary(settings.path),
        eos_token_ids=manifest.eos_token_ids,
        slots=slots + lanes,
        kv_memory=settings.kv_memory or _room_for_cache(manifest.id, device),
        digest=manifest.digest,
        context_length=manifest.context_length,
    )
    return Loaded(engine, device, lanes)
