"""``python -m benchmarks [--quick]``: all figures in one table, kept in ``benchmarks/results``.

Uses the default model prepared in ``DATA`` (``make run`` does that). Run it on an otherwise idle
machine: what counts are ratios, both sides of which are measured in turn in the same run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import engine, portal

BATCHES = (1, 4, 16, 32, 64)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds")
    quick = parser.parse_args().quick
    data = Path(os.environ.get("DATA") or "data").resolve()
    folder = data / "models" / (os.environ.get("DEFAULT_MODEL") or "gemma-3-270m")
    if not (folder / "manifest.json").exists():
        print(f"{folder} holds no prepared model. Run `make run` once first.", file=sys.stderr)
        return 1
    through = portal.measure(folder, **({"rounds": 1, "tokens": 48} if quick else {}))
    print("\n".join(through.lines()), flush=True)
    print("\n{:<24}{:>10}{:>10}{:>10}{:>14}{:>8}".format(*_HEADING), flush=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as process:  # torch and its memory end with it
        rows = process.submit(engine.measure, folder, BATCHES, quick=quick).result()
    now = datetime.now(UTC)
    found = {
        "at": now.isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "cpu": _cpu(), "python": platform.python_version()},
        "model": folder.name,
        "engine": [asdict(row) | {"ratio": row.ratio} for row in rows],
        "portal": asdict(through),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d-%H%M}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nKept in {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 0


_HEADING = ("tokens/s", "engine", "low", "high", "transformers", "ratio")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


if __name__ == "__main__":
    sys.exit(main())
