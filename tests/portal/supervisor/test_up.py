"""``manage.py up`` with real processes: alone in its folder, mended when they crash, gone after."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.running import wait_for
from tests.up import Up

NAMES = {"valkey", "portal", "tasks", "worker-echo"}


def test_it_runs_what_a_machine_needs_and_prints_the_url(up: Up) -> None:
    assert set(up.state["children"]) == NAMES
    assert f": {up.url}" in up.said
    assert "/operator/" in up.said
    for name in NAMES:
        assert (up.data / "logs" / f"{name}.log").exists()


def test_redis_listens_to_us_alone(up: Up) -> None:
    socket = up.data / "redis" / "redis.sock"
    assert socket.stat().st_mode & 0o077 == 0
    listening = Path(f"/proc/{up.child('valkey')}/net/tcp").read_text()
    assert ":18EB " not in listening  # 6379


def test_a_second_one_says_that_one_is_running(up: Up) -> None:
    with Up(folder=up.folder) as second:
        assert second.wait() == 2
        assert f"pid {up.state['pid']}" in second.said
        assert up.url in second.said
    assert up.ready()


def test_a_second_instance_runs_beside_it(up: Up) -> None:
    with Up() as other:
        other.wait_ready()
        assert up.ready()
        assert other.url != up.url
        other.signal(signal.SIGTERM)
        assert other.wait() == 0
    assert up.ready()


def test_a_port_in_use_is_named(up: Up) -> None:
    with Up(PORT=str(up.port)) as other:
        assert other.wait() == 2
        assert f"PORT={up.port}" in other.said
        assert not other.ours()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_crashed_child_is_restarted_and_said(up: Up, name: str) -> None:
    before = up.child(name)
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        return up.state["children"].get(name, before) != before and up.ready()

    assert wait_for(again, 40), up.said[-2000:]
    assert f"{name} was ended by SIGKILL" in up.said


def test_a_bad_redis_is_named() -> None:
    with Up(REDIS_URL="redis://127.0.0.1:1/0") as up:
        assert up.wait() == 2
        assert "REDIS_URL=redis://127.0.0.1:1/0 does not answer" in up.said
        assert not up.ours()


def test_an_unknown_default_model_is_named() -> None:
    with Up(DEFAULT_MODEL="nobody-knows-it") as up:
        assert up.wait() == 2
        assert "DEFAULT_MODEL=nobody-knows-it" in up.said
        assert not up.ours()


def test_a_folder_that_cant_be_written_is_named() -> None:
    with Up(DATA="/proc/data") as up:  # where root can't write either
        assert up.wait() == 2
        assert "DATA='/proc/data'" in up.said
        assert "Traceback" not in up.said


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with Up(folder=tmp_path) as up:
        assert up.wait() == 2
        assert "DATA=" in up.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(number: signal.Signals) -> None:
    with Up() as up:
        up.wait_ready()
        begun = time.monotonic()
        up.signal(number)
        assert wait_for(lambda: not up.ready(), 2.0)
        assert up.wait() == 0
        assert time.monotonic() - begun < 30
        assert up.said.rstrip().endswith("Stopped.")
        assert not up.ours()
        assert not (up.data / "up.json").exists()
        assert "was ended" not in up.said


def test_killed_outright_it_leaves_no_orphan_and_no_lock() -> None:
    with Up() as up:
        up.wait_ready()
        children = up.state["children"]
        # a grandchild in a session of its own, as libraries make them
        grandchild = (
            "import subprocess,sys;subprocess.Popen(['sleep','600'],start_new_session=True)"
        )
        environment = {**up.environment, "LLMASOS_UP": _mark(children["portal"])}
        os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", grandchild], environment)
        assert len(up.ours()) >= len(NAMES) + 2
        up.signal(signal.SIGKILL)
        up.wait()
        assert wait_for(lambda: not up.ours(), 5.0), up.ours()
        up.start()
        up.wait_ready()
        assert set(up.state["children"]) == NAMES


def _mark(pid: int) -> str:
    found = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(part.partition("=")[2] for part in found if part.startswith("LLMASOS_UP="))
