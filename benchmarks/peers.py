"""Who is measured beside us: virtual environments in one folder, named after the peers.

    PEERS/transformers   PEERS/transformers-cb   PEERS/llamacpp   PEERS/vllm

``transformers.generate`` is always there: without an environment of its own it runs in ours. A peer
that can't run here is named with its reason and left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.process import Process, SideError
from benchmarks.weights import Files

DRIVER = Path(__file__).with_name("driver.py")
NAMES = ("transformers", "transformers-cb", "llamacpp", "vllm")
FIRST_WITHIN = 60.0
"""Seconds for the first four tokens of a prompt: what needs more is no peer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to run one peer. ``dtype`` is the weights' where the peer lets us choose."""

    name: str
    python: Path
    model: Path
    dtype: str = "bfloat16"

    def process(self, most: int) -> Process:
        command = [self.python, DRIVER, self.name, self.model, "--dtype", self.dtype]
        named = f"{self.name} {self.dtype}"
        environment = _clean()
        openmp = self.python.parent.parent / "lib" / "libiomp5.so"
        if self.name == "vllm" and openmp.exists():
            # As its documentation advises; threads that wait give their core back soon.
            environment |= {"LD_PRELOAD": str(openmp), "KMP_BLOCKTIME": "1"}
        return Process(named, [*map(str, command), "--most", str(most)], environment)


@dataclass(slots=True)
class Found:
    """The peers that run, loaded, by name: several processes where a peer may take several types.
    ``about`` is what each said of itself, ``left_out`` why others don't run."""

    running: dict[str, list[Process]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def candidates(folder: Path | None, files: Files, own: Path, *, bfloat16: bool) -> list[Peer]:
    """Every peer to try. ``bfloat16``: this CPU computes in it; otherwise those that read dense
    weights may take float32 too, which is several times faster then.

    Raises:
        SideError: ``folder`` has no environment that is named after a peer.
    """
    found: list[Peer] = []
    for name in NAMES:
        python = folder / name / "bin" / "python" if folder is not None else None
        if python is None or not python.exists():
            if name != "transformers":
                continue
            python = own
        if name == "llamacpp":
            found += [Peer(name, python, files.gguf, "GGUF")] if files.gguf else []
            continue
        types = ("bfloat16",) if bfloat16 else ("bfloat16", "float32")
        found += [Peer(name, python, files.dense, dtype) for dtype in types]
    if folder is not None and not any(
        (folder / name / "bin" / "python").exists() for name in NAMES
    ):
        raise SideError(
            f"{folder} has no virtual environment of a peer. Name one {', '.join(NAMES)}."
        )
    return found


@contextmanager
def started(peers: list[Peer], most: int) -> Iterator[Found]:
    """Load them, one after another; they end with the block. ``most`` is the largest batch."""
    found = Found()
    with ExitStack() as stack:
        for peer in peers:
            try:
                process = stack.enter_context(peer.process(most))
                # Loading says little: what it lacks shows when it computes.
                process.ask("prefill", prompt=[2, 3, 4, 5], within=FIRST_WITHIN)
            except SideError as error:
                found.left_out[f"{peer.name} {peer.dtype}"] = str(error)
                continue
            found.running.setdefault(peer.name, []).append(process)
            found.about[process.name] = process.about
        yield found


def _clean() -> dict[str, str]:
    """Our environment without what points Python at our own packages."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden}
