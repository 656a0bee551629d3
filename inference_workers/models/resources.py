"""How much memory and disk there is to have, before somebody takes it. Linux; elsewhere unknown."""

from __future__ import annotations

import shutil
from pathlib import Path

from inference_workers.errors import ModelError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
DISK_RESERVE = 64 << 20
TOO_LITTLE_MEMORY = "too_little_memory"


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, within the container's limit; ``None``: unknown."""
    candidates = [value for value in (_from_meminfo(), _from_cgroup()) if value is not None]
    return min(candidates) if candidates else None


def require_memory(needed: int, what: str) -> None:
    """Raises ``ModelError`` with both numbers where ``needed`` bytes are more than there are."""
    available = available_memory()
    if available is not None and needed > available:
        raise ModelError(
            f"{what} needs {gigabytes(needed)} of memory and {gigabytes(available)} are free. Free "
            "some memory, unload another model, or choose a smaller one.",
            code=TOO_LITTLE_MEMORY,
        )


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Raises ``ModelError`` with both numbers where the disk of ``folder`` can't take it."""
    free = shutil.disk_usage(folder).free
    if needed + DISK_RESERVE > free:
        raise ModelError(
            f"{what} needs {gigabytes(needed)} on the disk of {folder} and {gigabytes(free)} are "
            "free. Make room, or use a folder on another disk.",
            code="too_little_disk",
        )


def gigabytes(count: int) -> str:
    """A number of bytes as people say it."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.0f} MB"


def _from_meminfo() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _from_cgroup() -> int | None:
    """The version 2 control group's limit less what is used and can't be dropped."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
