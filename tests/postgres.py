"""A private PostgreSQL for one command: ``python -m tests.postgres -- pytest tests/portal/jobs``.

Starts a server in a temporary folder on a free loopback port, runs the command with
``DATABASE_URL`` pointing at it, and ends the server by its pid, however the command ends.
``--install`` only makes sure that there is one: as root on Debian it installs it. Without
a command it prints ``DATABASE_URL=…`` and serves until interrupted. PostgreSQL refuses to run as
root, so root hands it to ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.environment import die_with_parent

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")


class NoPostgresError(Exception):
    """No PostgreSQL here; install one or put its ``bin`` on PATH."""


def binaries() -> Path:
    """The folder with ``initdb`` and ``postgres``, newest first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoPostgresError("no initdb in /usr/lib/postgresql/*/bin or on PATH")


def _account() -> pwd.struct_passwd | None:
    """Whom root runs the server as; ``None`` when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgresError("running as root, and there is neither 'postgres' nor 'nobody'")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server() -> Iterator[str]:
    """A running server; yields its ``DATABASE_URL``."""
    tools, account = binaries(), _account()
    root = Path(tempfile.mkdtemp(prefix="llmpg-", dir="/tmp"))
    data, port = root / "data", _free_port()
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    if account:
        os.chown(root, account.pw_uid, account.pw_gid)
    process: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(
            [tools / "initdb", "-D", data, "-U", "llmasos", "-A", "trust", "-E", "UTF8", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=root,
            **who,  # type: ignore[call-overload]
        )
        options = [part for setting in FAST for part in ("-c", setting)]
        process = subprocess.Popen(
            [tools / "postgres", "-D", data, "-p", str(port), "-k", root, *options],
            stderr=(root / "log").open("wb"),
            cwd=root,
            preexec_fn=None if account else die_with_parent,
            **who,
        )
        _wait(port, process, root / "log")
        yield f"postgresql://llmasos@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # "fast shutdown"
            process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    give_up = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(f"postgresql://llmasos@127.0.0.1:{port}/postgres").close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise NoPostgresError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.1)


def install() -> int:
    """0 when there is a server afterwards; says plainly what to do when there is not."""
    apt = shutil.which("apt-get") if os.geteuid() == 0 else None
    for attempt in (apt, None):
        try:
            binaries()
        except NoPostgresError as error:
            if not attempt:
                hint = "Install it (Debian: apt-get install postgresql) or put its bin on PATH."
                print(f"These tests need PostgreSQL: {error}. {hint}", file=sys.stderr)
                return 1
            print("Installing PostgreSQL with apt-get", flush=True)
            for command in (["-qq", "update"], ["-qqy", "install", "postgresql"]):
                subprocess.run([attempt, *command], check=False, stdout=subprocess.DEVNULL)
        else:
            break
    return 0


def main(arguments: list[str]) -> int:
    if arguments == ["--install"]:
        return install()
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with server() as url:
        if not command:
            print(f"DATABASE_URL={url}", flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                return 0
        if command[0] == "pytest":
            command = [sys.executable, "-m", *command]
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
