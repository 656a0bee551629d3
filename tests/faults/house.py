"""A small house to break: a Valkey, the echo model, and worker processes that serve it."""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import structlog

from inference_workers.config import worker_settings
from inference_workers.contract import Entry, Job, Sampling
from inference_workers.loading import load_engine
from inference_workers.loop import Admission, EngineLoop
from inference_workers.models.echo_folder import write_echo
from inference_workers.models.manifest import Manifest, write_manifest
from inference_workers.queue import Claim, FairQueue, JobLog, Leases, WorkerInfo, connect
from inference_workers.sink import MemorySink
from tests.faults.process import spawn
from tests.faults.reader import Reader
from tests.faults.valkey import Valkey

MODEL = "echo"
T = TypeVar("T")

Prepare = Callable[[Path, str], Manifest]
"""Makes a model folder with an id; the echo model where none is given."""


class House:
    """Workers are started with ``worker``; jobs are followed by ``reader``.

    ``lease`` is shorter than the product's 6 s where waiting for it would make a test long.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lease: float,
        step: float,
        chunk: int = 512,
        prepare: Prepare | None = None,
    ) -> None:
        self.folder = folder
        self.lease = lease
        self.valkey = Valkey(folder / "redis").start()
        self.manifest = (prepare or _echo_model)(folder / "model", MODEL)
        client = connect(self.valkey.url)
        self.redis = client
        self.queue, self.log = FairQueue(client), JobLog(client)
        self.leases = Leases(client, lease_seconds=lease)
        self.reader = Reader(self.valkey.url)
        self._quiet: tuple[EngineLoop, MemorySink] | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "REDIS_URL": self.valkey.url,
            "LLMASOS_LEASE_SECONDS": str(lease),
            "LLMASOS_ECHO_STEP_S": str(step),
            "LLMASOS_ECHO_CHUNK": str(chunk),
            "LLMASOS_ECHO_POISON": "1",
            "LLMASOS_NICE": "0",
            "OMP_NUM_THREADS": "1",
        }

    def worker(
        self, *arguments: str, slots: int = 32, wait: bool = True, **environment: str
    ) -> str:
        """Start a worker process under a new name."""
        name = f"w{len(self.workers) + 1}"
        self.workers[name] = spawn(
            [
                sys.executable, "-m", "inference_workers", "serve", "--model", MODEL,
                "--path", self.folder / "model", "--name", name, "--slots", str(slots),
                *arguments,
            ],
            self.folder / f"{name}.log",
            self._environment | environment,
        )  # fmt: skip
        if wait:
            self.ready(name)
        return name

    def ready(self, name: str, timeout: float = 120.0) -> WorkerInfo:
        def found() -> WorkerInfo | None:
            live = (w for w in self.leases.workers() if w.name == name and w.state == "ready")
            return next(live, None)

        return until(found, timeout, f"{name} is ready")

    def alive(self) -> list[str]:
        return [name for name, process in self.workers.items() if process.poll() is None]

    def signal(self, name: str, number: signal.Signals) -> None:
        self.workers[name].send_signal(number)
        if number == signal.SIGKILL:
            self.workers[name].wait()

    def submit(self, *jobs: Job) -> list[str]:
        for job in jobs:
            self.queue.enqueue(job)
            self.reader.follow(job.id)
        return [job.id for job in jobs]

    def close(self) -> None:
        if self._quiet is not None:
            self._quiet[0].stop(5)
        for name in self.alive():
            self.signal(name, signal.SIGKILL)
        self.reader.close()
        self.valkey.stop()

    def job(self, rng: random.Random, *, tokens: int, prompt: str | None = None) -> Job:
        """A greedy or a sampled job, its text full of characters that are several tokens."""
        said = prompt or "".join(rng.choice("aé好🙂 ") for _ in range(rng.randint(5, 400)))
        return Job(
            id=uuid.UUID(int=rng.getrandbits(128), version=4).hex,
            team=rng.choice(["red", "green", "blue"]),
            source="test",
            model=MODEL,
            model_digest=self.manifest.digest,
            format="none",
            input_ids=tuple(said.encode()),
            sampling=Sampling(max_tokens=tokens, temperature=rng.choice([0.0, 1.0])),
            seed=rng.getrandbits(63),
        )

    def undisturbed(self, job: Job) -> list[Entry]:
        """The job's log when nothing goes wrong: alone in the same engine, in this process."""
        if self._quiet is None:
            environment = {"REDIS_URL": self.valkey.url}
            args = argparse.Namespace(
                model=MODEL, path=self.folder / "model", name="undisturbed", slots=None,
                kv_memory=None, threads=None, metrics_port=None,
            )  # fmt: skip
            loaded = load_engine(
                self.manifest, worker_settings(args, environment), lambda fraction, message: None
            )
            sink = MemorySink()
            self._quiet = EngineLoop(loaded.engine, sink, worker="undisturbed"), sink
            self._quiet[0].start()
        loop, sink = self._quiet
        assert loop.reserve()
        claim = Claim(job=job.model_copy(update={"epoch": 1}), last_seq=0, suspect=False)
        loop.admit(Admission(claim))
        until(lambda: any(e.terminal for e in sink.read(job.id)), 60, "the undisturbed run ends")
        return sink.read(job.id)


def until(found: Callable[[], T | None], timeout: float, what: str) -> T:
    """The first true value of ``found``."""
    end = time.monotonic() + timeout
    while True:
        if value := found():
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s until {what}")
        time.sleep(0.01)


def _echo_model(folder: Path, model_id: str) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_echo(folder, model_id=model_id, source="echo")
    write_manifest(folder, manifest)
    return manifest


@contextmanager
def a_house(
    *, lease: float = 2.0, step: float = 0.02, chunk: int = 512, prepare: Prepare | None = None
) -> Iterator[House]:
    """A house in a temporary folder; when something fails its logs stay and the path is shown."""
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    folder = Path(tempfile.mkdtemp(prefix="llmasos-"))
    house = House(folder, lease=lease, step=step, chunk=chunk, prepare=prepare)
    try:
        yield house
    except BaseException:
        print(f"the processes' logs are in {folder}")
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        house.close()
