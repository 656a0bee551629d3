"""How much memory and disk there is to have, before somebody takes it. Linux; elsewhere unknown."""

from __future__ import annotations

import shutil
from pathlib import Path

from inference_workers.errors import ModelError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
DISK_RESERVE = 64 << 20
TOO_LITTLE_MEMORY = "too_little_memory"


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, within the limits of container and service;
    ``None``: unknown."""
    candidates = [value for value in (_from_meminfo(), _from_cgroups()) if value is not None]
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


def _from_cgroups() -> int | None:
    """What the tightest of the process' control groups leaves: its own, or one above it."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return None
    left: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUP / controllers
        own = root / path.lstrip("/")
        # In a container the path may be the host's; then the root is the container's own.
        places = [root, *(place for place in (own, *own.parents) if root in place.parents)]
        read = _version_1 if controllers else _version_2
        left += [value for value in map(read, places) if value is not None]
    return min(left, default=None)


def _version_2(folder: Path) -> int | None:
    return _left(folder, "memory.max", "memory.current", "inactive_file")


def _version_1(folder: Path) -> int | None:
    return _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, used: str, droppable: str) -> int | None:
    """The limit less what is used and can't be dropped."""
    try:
        most = int((folder / limit).read_text())  # "max" is none
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - int((folder / used).read_text()) + int(stat.get(droppable, 0)))
    except (OSError, ValueError):
        return None
