"""Where the system's Chromium is. ``python -m tests.e2e.chromium`` installs one where it can.

``CHROMIUM`` names another one. Playwright's own browsers are not downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
]
REMEDY = (
    "The browser's tests need Chromium. Install it (Debian: apt-get install chromium) or set "
    "CHROMIUM=/path/to/it."
)


def find() -> str | None:
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    return next(filter(None, map(shutil.which, NAMES)), None)


def install() -> None:
    """As root on Debian; elsewhere nothing."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Chromium with apt-get", flush=True)
        for command in (["apt-get", "-qq", "update"], ["apt-get", "-qqy", "install", "chromium"]):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def main() -> int:
    if not find() and not os.environ.get("CHROMIUM"):
        install()
    if not find():
        print(REMEDY, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
