"""A worker by itself: how soon it is ready, and what memory it takes at most.

    python -m benchmarks.worker --model DIR [--starts 5] [--kv-memory BYTES]

The process is the one that ``make run`` starts, with a Valkey of its own. Its cache is filled with
prompts before the peak is read, because memory that nobody wrote to is not taken yet. As after
anybody's first start, Python's modules are compiled already, in a folder of the benchmark's own.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.turns import Sample
from inference_workers.contract import Job, Sampling
from inference_workers.engine.engine import DEFAULT_KV_MEMORY
from inference_workers.models.folder import find_weights
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.queue import FairQueue, JobLog, Leases, connect
from tests.faults.process import spawn
from tests.faults.valkey import Valkey

PROMPT = 1000
SIZES = ("peak", "mapped", "idle", "weights", "cache", "floor")
FLOOR = "import numpy, redis, torch; print(open('/proc/self/status').read())"
WAIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """Seconds from the process' start to its first "ready", each time; bytes of the rest.

    ``peak`` is the process' largest resident memory (VmHWM) with ``cache`` bytes of keys and values
    filled, of which ``mapped`` are pages of files: the weights and the libraries, which other
    workers share. ``idle`` is the resident memory of a worker that has served nothing, ``floor``
    that of a process that has imported torch, redis and NumPy and nothing else.
    """

    ready: tuple[float, ...]
    peak: int
    mapped: int
    idle: int
    weights: int
    cache: int
    floor: int

    @property
    def share(self) -> float:
        """Peak memory over weights and cache."""
        return self.peak / (self.weights + self.cache)

    def as_dict(self) -> dict[str, Any]:
        sizes = {n: getattr(self, n) for n in SIZES}
        return {"ready_seconds": Sample(self.ready).as_dict(), **sizes, "share": self.share}

    def line(self) -> str:
        said = {name: f"{getattr(self, name) / 1e6:.0f} MB" for name in SIZES}
        return (
            f"a worker is ready after {Sample(self.ready).median:.1f} s; at most {said['peak']} of "
            f"memory ({said['mapped']} of it files) with {said['weights']} of weights and "
            f"{said['cache']} of cache: {self.share:.2f}; torch alone takes {said['floor']}"
        )


def measure(model: Path, *, starts: int = 5, kv_memory: int = DEFAULT_KV_MEMORY) -> WorkerFigures:
    """Start workers one after another; fill the last one's cache."""
    folder = Path(tempfile.mkdtemp(prefix="llm-bench-", dir="/tmp"))
    manifest = read_manifest(model)
    weights = sum(path.stat().st_size for path in find_weights(model).files)
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "LLMASOS_NICE": "0"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    valkey = Valkey(folder / "redis").start()
    try:
        floor = _floor(environment)
        first, _ = _started(model, manifest.id, valkey, "compiling", kv_memory, environment)
        first.kill()
        first.wait()
        ready: list[float] = []
        for number in range(starts):
            process, seconds = _started(
                model, manifest.id, valkey, f"b{number}", kv_memory, environment
            )
            ready.append(seconds)
            try:
                if number == starts - 1:
                    idle = _memory(process.pid)["VmRSS"]
                    _fill(valkey, manifest, f"b{number}")
                    memory = _memory(process.pid)
            finally:
                process.kill()
                process.wait()
    finally:
        valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return WorkerFigures(
        tuple(ready), memory["VmHWM"], memory["RssFile"], idle, weights, kv_memory, floor
    )


def _floor(environment: dict[str, str]) -> int:
    """Peak memory of a process that has only imported the libraries, compiled before."""
    for _ in range(2):
        status = subprocess.check_output([sys.executable, "-c", FLOOR], env=environment, text=True)
    return _sizes(status)["VmHWM"]


def _started(
    model: Path,
    model_id: str,
    valkey: Valkey,
    name: str,
    kv_memory: int,
    environment: dict[str, str],
) -> tuple[subprocess.Popen[bytes], float]:
    command = [sys.executable, "-m", "inference_workers", "serve", "--model", model_id]
    command += ["--path", str(model), "--name", name, "--kv-memory", str(kv_memory)]
    leases = Leases(connect(valkey.url))
    log = valkey.folder.parent / f"{name}.log"
    began = time.perf_counter()
    process = spawn(command, log, environment | {"REDIS_URL": valkey.url})

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"the worker ended:\n{log.read_text(errors='replace')[-2000:]}")
        return any(w.name == name and w.state == "ready" for w in leases.workers())

    _until(ready)
    return process, time.perf_counter() - began


def _fill(valkey: Valkey, manifest: Manifest, worker: str) -> None:
    """Prompts until every block was written to, and one more."""
    client = connect(valkey.url)
    queue, log, leases = FairQueue(client), JobLog(client), Leases(client)
    rng = random.Random(1)
    total = next(w.blocks_total for w in leases.workers() if w.name == worker) * 16
    jobs = [f"fill-{number}" for number in range(total // PROMPT + 1)]
    for job in jobs:
        ids = tuple(
            rng.randrange(manifest.vocab_size // 256, manifest.vocab_size // 2)
            for _ in range(PROMPT)
        )
        queue.enqueue(
            Job(
                id=job,
                team="bench",
                source="bench",
                model=manifest.id,
                model_digest=manifest.digest,
                format=manifest.format,
                input_ids=ids,
                sampling=Sampling(max_tokens=2, temperature=0, ignore_eos=True),
                seed=1,
            )
        )
    for job in jobs:
        _until(lambda job=job: any(entry.terminal for entry in log.read(job)))  # type: ignore[misc]


def _memory(pid: int) -> dict[str, int]:
    """The process' memory in bytes, by the kernel's names."""
    return _sizes(Path(f"/proc/{pid}/status").read_text())


def _sizes(status: str) -> dict[str, int]:
    pairs = (line.split() for line in status.splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in pairs}


def _until(found: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not found():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened for {WAIT_SECONDS:.0f} s")
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--kv-memory", type=int, default=DEFAULT_KV_MEMORY)
    given = parser.parse_args()
    found = measure(given.model.resolve(), starts=given.starts, kv_memory=given.kv_memory)
    print(found.line())


if __name__ == "__main__":
    main()
