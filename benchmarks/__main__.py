"""``python -m benchmarks [--quick] [--peers DIR] [--only PART,...]``: all figures of one run.

``--rounds`` and ``--batches`` make less of the engine's table.

Uses the default model prepared in ``DATA`` (``make run`` does that). Run it on an otherwise idle
machine: what counts are ratios, all sides of which are measured in turn in the same run. Results
are kept in ``benchmarks/results``; ``python -m benchmarks.report`` makes ``docs/performance.md``
of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import embeddings, engine, goals, machine, own_time, portal, quality, worker
from benchmarks.comparison import BATCHES
from benchmarks.process import SideError
from inference_workers.errors import ModelError
from inference_workers.models.manifest import FILE_NAME, read_manifest
from tests import postgres

RESULTS = Path(__file__).parent / "results"
PARTS = ("engine", "quality", "worker", "embeddings", "portal", "request", "usage")
ENCODER = "all-minilm-l6-v2"
MOST_ROUNDS = 100


def main() -> int:
    given = _arguments()
    data = Path(os.environ.get("DATA") or "data").resolve()
    folder = data / "models" / (os.environ.get("DEFAULT_MODEL") or "gemma-3-270m")
    try:
        manifest = read_manifest(folder)
    except ModelError as error:
        print(f"{error} `make run` does.", file=sys.stderr)
        return 1
    now, here = datetime.now(UTC), machine.describe()
    if machine.busy(here):
        print(f"The machine is not idle (load {here['load']}): take these figures for noise.\n")
    found: dict[str, Any] = {
        "at": now.isoformat(timespec="seconds"),
        "quick": given.quick,
        "machine": here,
        "model": manifest.model_dump(mode="json", include={"id", "format", "bytes", "parameters"}),
    }
    try:
        for part in given.only:
            found |= _measured(part, folder, data / "bench", given)
    except SideError as error:
        print(error, file=sys.stderr)
        return 1
    found["goals"] = [
        asdict(goal) | {"reached": goal.reached} for goal in goals.held_against(found)
    ]
    print("\nGoals\n" + "\n".join(goal.lines() for goal in goals.held_against(found)))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d-%H%M}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(f"\nKept in {shown}. For docs/performance.md: python -m benchmarks.report {shown}")
    return 0


def _measured(part: str, folder: Path, made: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One part's results; prints them."""
    quick = given.quick
    if part == "engine":
        return engine.measure(
            folder, made, given.peers, given.batches, quick=quick, rounds=given.rounds
        )
    if part == "quality":
        print("\nperplexity", flush=True)
        return {"quality": quality.measure(folder, made, given.peers, quick=quick)}
    if part == "worker":
        started = worker.measure(folder, **({"starts": 2, "kv_memory": 64 << 20} if quick else {}))
        print(f"\n{started.line()}", flush=True)
        return {"worker": started.as_dict()}
    if part == "request":
        cost = own_time.measure(100 if quick else 300)
        print("\n" + "\n".join(cost.lines()), flush=True)
        return {"request": cost.as_dict()}
    if part == "usage":
        return _usage_pages(100_000 if quick else 1_000_000)
    if part == "embeddings":
        encoder = folder.with_name(os.environ.get("EMBEDDING_MODEL") or ENCODER)
        if not (encoder / FILE_NAME).exists():
            print(f"\n{encoder.name} is not prepared: no embeddings are measured.", flush=True)
            return {}
        print(f"\n{'texts/s':<34}{'llmasos':>16}{'transformers':>16}{'ratio':>8}", flush=True)
        return {"embeddings": {"model": encoder.name, **embeddings.measure(encoder, quick=quick)}}
    through = portal.measure(folder, **({"rounds": 1, "tokens": 48} if quick else {}))
    print("\n" + "\n".join(through.lines()), flush=True)
    return {"portal": asdict(through)}


def _usage_pages(jobs: int) -> dict[str, Any]:
    """In a process with a PostgreSQL of its own, which decides its settings as it begins."""
    try:
        postgres.binaries()
    except postgres.NoPostgresError as error:
        print(f"\nThe usage pages are left out: {error}. Install PostgreSQL first.")
        return {}
    print(f"\na team's pages with {jobs:,} jobs, on PostgreSQL", flush=True)
    with tempfile.TemporaryDirectory() as folder, postgres.server() as url:
        results = Path(folder, "usage.json")
        command = [sys.executable, "-m", "benchmarks.usage", "--jobs", str(jobs)]
        subprocess.run(
            [*command, "--results", str(results)],
            env=os.environ | {"DATABASE_URL": url},
            check=True,
        )
        return {"usage": json.loads(results.read_text())}


def _arguments() -> argparse.Namespace:
    def parts(text: str) -> list[str]:
        chosen = text.split(",")
        if wrong := set(chosen) - set(PARTS):
            raise argparse.ArgumentTypeError(f"{wrong.pop()!r} is none of {', '.join(PARTS)}")
        return chosen

    def folder(text: str) -> Path:
        path = Path(text).resolve()
        if not path.is_dir():
            raise argparse.ArgumentTypeError(f"{text} is not a folder of virtual environments")
        return path

    def batches(text: str) -> list[int]:
        try:
            chosen = [int(number) for number in text.split(",")]
        except ValueError:
            chosen = [0]
        if not all(1 <= number <= max(BATCHES) for number in chosen):
            raise argparse.ArgumentTypeError(
                f"{text!r} must be numbers from 1 to {max(BATCHES)}, with commas between them"
            )
        return chosen

    def rounds(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= MOST_ROUNDS:
            raise argparse.ArgumentTypeError(f"{text!r} must be a number from 1 to {MOST_ROUNDS}")
        return int(text)

    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds")
    parser.add_argument(
        "--peers", type=folder, metavar="DIR", help="a virtual environment for each peer"
    )
    parser.add_argument("--only", type=parts, default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--batches", type=batches, default=list(BATCHES), metavar="N,…")
    parser.add_argument("--rounds", type=rounds, metavar="N", help="of the engine's table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
