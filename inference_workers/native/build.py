"""Building the kernels, and where they are then."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "kernels"
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-fno-math-errno")
TIMEOUT_S = 300


def library_path() -> Path:
    """Beside this module, named by the sources: what was built from others is never loaded."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return Path(__file__).parent / f"kernels-{digest.hexdigest()[:12]}.so"


def build() -> Path | None:
    """Build what is missing, whole or not at all; ``None`` where this machine can't.

    Raises:
        subprocess.CalledProcessError: the compiler refused.
    """
    path = library_path()
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if path.exists():
        return path
    if platform.machine() != "x86_64" or compiler is None:
        return None
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        sources = [str(source) for source in sorted(SOURCES.glob("*.c"))]
        subprocess.run(  # noqa: S603  (the system's compiler, on our own sources)
            [compiler, *FLAGS, "-o", str(made), *sources, "-lm"], check=True, timeout=TIMEOUT_S
        )
        made.rename(path)
    for old in path.parent.glob("kernels-*.so"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def main() -> int:
    try:
        if build() is None:
            print(
                "No C compiler for x86-64 here, so models compute in torch alone: it works, but "
                "slower. Install gcc or clang and start again to change that."
            )
    except (subprocess.SubprocessError, OSError) as error:
        print(f"The kernels can't be built ({error}): models compute in torch alone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
