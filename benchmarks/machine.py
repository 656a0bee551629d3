"""The machine that figures come from: without it they say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
"""What decides which kernels run."""
PACKAGES = ("torch", "transformers", "numpy", "tokenizers")
IDLE = 0.25
"""A load a core above which a run says that its figures are noise."""


def describe() -> dict[str, Any]:
    """CPU, cores that we may use, memory in bytes, versions, and the load when we began."""
    info = _read("/proc/cpuinfo")
    flags = set(_field(info, "flags").split())
    return {
        "cpu": _field(info, "model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "load": round(os.getloadavg()[0], 2),
    }


def computes_bfloat16(machine: dict[str, Any]) -> bool:
    """Whether the CPU has instructions for bfloat16: torch converts it otherwise."""
    return bool({"avx512_bf16", "amx_tile"} & set(machine["flags"]))


def busy(machine: dict[str, Any]) -> bool:
    return bool(machine["load"] > IDLE * machine["cores"])


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
