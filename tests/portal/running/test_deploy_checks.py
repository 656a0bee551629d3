"""Django's own checks for a deployment have nothing to say about one that is set up as we tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.running import REPOSITORY


def test_a_deployment_behind_tls_passes_djangos_checks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "DATA": str(tmp_path),
            "PUBLIC_URL": "https://llm.example.org",
            "TRUSTED_PROXIES": "1",
            "HSTS_SECONDS": "31536000",
            "EMAIL_URL": "smtp+tls://user:password@mail.example.org:587",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout + done.stderr
