"""A whole LLMasOS, running: Valkey, worker, portal tasks and portal, as real processes.

    with Running() as running:
        key = running.make_key("me@example.org")
        httpx2.get(running.url + "/v1/models", headers={"Authorization": f"Bearer {key}"})

The model is ``echo``, which needs no torch; ``add_encoder`` adds a small random one for embeddings,
``add_llama`` one that can be held to a schema.
Each process has its own log in ``running.logs``, ends with the test process (PDEATHSIG) and is
stopped by its pid. ``running.start("portal")`` and ``running.stop("portal")`` act on one of
``portal``, ``worker`` and ``tasks``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.environment import Valkey, die_with_parent

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = "echo"
ENCODER = "all-minilm-l6-v2"
"""What the small encoder is called, so that examples work as they stand."""
LLAMA = "small-llama"
PASSWORD = "correct horse battery staple"
STARTS_WITHIN = 60.0

_CATALOGUE_ROW = """
import json
from django.conf import settings
from django.utils import timezone
from portal.catalogue.models import CatalogueModel
m = json.loads((settings.LLMASOS.data / "models" / "{model}" / "manifest.json").read_text())
CatalogueModel.objects.update_or_create(id="{model}", defaults=dict(
    name="{name}", family=m["family"], parameters=m["parameters"],
    context_length=m["context_length"], vocab_size=m["vocab_size"], dimensions=m["dimensions"],
    licence="none", kind=m["kind"], source="echo", digest=m["digest"], format=m["format"],
    bytes=m["bytes"], placement="always", state="ready", prepared_at=timezone.now()))
from portal.gallery.builtin import sync_builtin
sync_builtin()
"""
_SMALL_ENCODER = """
from pathlib import Path
from tests.small_encoder import prepared_bert
prepared_bert(Path("{folder}"), "{model}")
"""
_SMALL_LLAMA = """
from pathlib import Path
from tests.faults.small_model import small_llama
small_llama(Path("{folder}"), "{model}")
"""
_KEY = """
from portal.accounts.models import User
from portal.teams.models import ApiKey
from portal.teams.services import create_key, ensure_personal_team
user = User.objects.filter(email={email!r}).first()
user = user or User.objects.create_user({email!r}, {password!r}, is_staff={operator!r})
key, plaintext = create_key(team=ensure_personal_team(user=user), user=user, name="test")
ApiKey.objects.filter(pk=key.pk).update(scopes=ApiKey.Scope.values)
print(plaintext)
"""


class Running:
    """``step`` is how long the echo model takes for a token, in seconds."""

    def __init__(self, *, step: float = 0.0, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="llm-run-", dir="/tmp"))
        self.logs = self.folder / "logs"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.valkey = Valkey(self.folder / "redis")
        self.environment = self._environment(step) | environment
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _environment(self, step: float) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return kept | {
            "DATA": str(self.folder / "data"),
            "REDIS_URL": self.valkey.url,
            "PORT": str(self.port),
            "DEFAULT_MODEL": MODEL,
            "EMBEDDING_MODEL": "",
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "LLMASOS_ECHO_STEP_S": str(step),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Self:
        try:
            self.logs.mkdir(parents=True)
            self.valkey.start()
            self._prepare()
            for name in ("worker", "tasks", "portal"):
                self.start(name)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def _prepare(self) -> None:
        """Model folder, tables and rows; at once, because interpreters are slow to start."""
        folder = Path(self.environment["DATA"], "models", MODEL)
        folder.parent.mkdir(parents=True, exist_ok=True)
        source = ("--source", "echo", "--id", MODEL, "--out", str(folder))
        with ThreadPoolExecutor() as pool:
            prepared = pool.submit(self.run, "-m", "inference_workers", "prepare", *source)
            migrated = pool.submit(self.manage, "migrate", "--verbosity", "0")
            prepared.result()
            migrated.result()
        self.python(_CATALOGUE_ROW.format(model=MODEL, name="Echo"))

    def add_encoder(self) -> str:
        """Start a worker for a small random BERT; its model's id. Jobs wait for it."""
        return self._add("encoder", ENCODER, _SMALL_ENCODER)

    def add_llama(self) -> str:
        """The same for a small random LLaMA in the real engine."""
        return self._add("llama", LLAMA, _SMALL_LLAMA)

    def _add(self, process: str, model: str, prepare: str) -> str:
        folder = Path(self.environment["DATA"], "models", model)
        self.run("-c", prepare.format(folder=folder, model=model))
        self.python(_CATALOGUE_ROW.format(model=model, name="Small"))
        self.start(process)
        return model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for name in list(self.processes):
            self.stop(name)
        self.valkey.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, name: str) -> list[str]:
        """The command line of one of our processes."""
        data = self.environment["DATA"]

        def worker(model: str, name: str) -> list[str]:
            path = f"{data}/models/{model}"
            named = ("serve", "--model", model, "--path", path, "--name", name)
            return ["-m", "inference_workers", *named]

        return {
            "worker": worker(MODEL, "w1"),
            "encoder": worker(ENCODER, "e1"),
            "llama": worker(LLAMA, "l1"),
            "tasks": ["manage.py", "tasks"],
            "portal": ["-m", "portal.serve", "-p", str(self.port), "portal.asgi:application"],
        }[name]

    def start(self, name: str) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *self.command(name)],
                cwd=REPOSITORY,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def stop(self, name: str, sign: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(sign)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def log(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *arguments: str) -> str:
        """Python with ``arguments`` in this installation; its output."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments[:3]} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout.strip()

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

    def python(self, code: str) -> str:
        """Run code with this installation's Django set up; what it prints."""
        return self.run("-c", f"import django; django.setup()\n{code}")

    def make_key(self, email: str, *, operator: bool = False) -> str:
        """An API key of the user's personal team; the user is made with ``PASSWORD`` if need be."""
        return self.python(_KEY.format(email=email, password=PASSWORD, operator=operator))

    def wait_ready(self) -> None:
        """Until the portal, Redis and a worker answer, or one of the processes ended."""

        def ready() -> bool:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended:\n{self.log(name)[-4000:]}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:
                    return bool(response.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        if not wait_for(ready, STARTS_WITHIN, every=0.1):
            tails = "\n".join(f"== {name}\n{self.log(name)[-2000:]}" for name in self.processes)
            raise RuntimeError(f"not ready after {STARTS_WITHIN:.0f} s\n{tails}")


def wait_for(condition: Callable[[], bool], seconds: float, *, every: float = 0.05) -> bool:
    """Whether ``condition`` came true in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(every)
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """One system for the session; a test that kills or slows something makes its own."""
    with Running(step=0.005) as system:
        yield system


@pytest.fixture(scope="session")
def encoder(running: Running) -> str:
    """The id of an encoder on the session's system."""
    return running.add_encoder()


@pytest.fixture(scope="session")
def llama(running: Running) -> str:
    """A small random LLaMA's id, of a worker in ``running``."""
    return running.add_llama()
