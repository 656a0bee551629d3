"""Which models get a worker here. Pure.

``always`` models have one. ``on_demand`` models get one while jobs wait for them and it fits into
the memory budget; to make room, the least recently used idle one is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OVERHEAD_BYTES = 1 << 30
"""What a worker needs besides its weights: interpreter, libraries, cache of keys and values."""

WEIGHT_COPIES = 2
"""Weights once as loaded and once as packed for the kernels."""

IDLE_AFTER_S = 30.0
"""A model used less long ago is not stopped to make room."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that is prepared and placed. ``bytes`` is the size of its files."""

    id: str
    always: bool
    bytes: int
    waiting: int = 0


def cost(weight_bytes: int) -> int:
    """Memory in bytes that a worker is expected to take."""
    return WEIGHT_COPIES * weight_bytes + (OVERHEAD_BYTES if weight_bytes > 1 << 20 else 1 << 27)


@dataclass(frozen=True, slots=True)
class Decision:
    """``run``: the models that should have a worker; ``refused``: those for which there is no room
    now, though jobs wait."""

    run: tuple[str, ...]
    refused: tuple[str, ...] = ()


def decide(
    models: Sequence[Wanted], used_at: Mapping[str, float], *, budget: int, now: float
) -> Decision:
    """``used_at``: the on-demand models that have a worker, with when they were last in use."""
    by_id = {model.id: model for model in models}
    run = [model.id for model in models if model.always]
    kept = {
        name: seen for name, seen in used_at.items() if name in by_id and not by_id[name].always
    }
    room = budget - sum(cost(by_id[name].bytes) for name in (*run, *kept))
    refused = []
    for model in sorted(models, key=lambda model: -model.waiting):
        if model.always or model.id in kept or not model.waiting:
            continue
        idle = sorted(
            (seen, name)
            for name, seen in kept.items()
            if now - seen >= IDLE_AFTER_S and not by_id[name].waiting
        )
        going, freed = [], 0
        for _seen, name in idle:
            if cost(model.bytes) <= room + freed:
                break
            going.append(name)
            freed += cost(by_id[name].bytes)
        if cost(model.bytes) > room + freed:
            refused.append(model.id)
            continue
        for name in going:
            del kept[name]
        kept[model.id] = now
        room += freed - cost(model.bytes)
    return Decision(run=(*run, *kept), refused=tuple(refused))


def unplaceable(models: Sequence[Wanted], *, budget: int) -> tuple[str, ...]:
    """The on-demand models that have no room beside the ``always`` ones, whoever else stops."""
    room = budget - sum(cost(model.bytes) for model in models if model.always)
    return tuple(m.id for m in models if not m.always and cost(m.bytes) > room)


def threads(cores: int, workers: int) -> int:
    """Cores for each of so many workers."""
    return max(1, cores // max(1, workers))
