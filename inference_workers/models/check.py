"""``python -m inference_workers check``: is a prepared folder still what its manifest says?"""

from __future__ import annotations

import argparse
from pathlib import Path

from inference_workers.errors import ModelError
from inference_workers.models.describe import load_tokenizer
from inference_workers.models.folder import find_weights, read_config
from inference_workers.models.manifest import Manifest, covered_files, digest_of, read_manifest
from inference_workers.models.report import Report, reporting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", required=True, type=Path, help="the prepared folder")


def main(args: argparse.Namespace) -> int:
    return reporting(lambda report: check(args.path, report))


def check(folder: Path, progress: Report) -> Manifest:
    """Read everything again and compare it with the manifest.

    Raises:
        ModelError: names the first thing that is not as it was prepared.
    """
    manifest = read_manifest(folder)
    progress(0.0, f"Checking {manifest.id}")
    read_config(folder)
    if manifest.family != "echo":
        find_weights(folder)
    load_tokenizer(folder)
    progress(0.3, "Comparing with the digest")
    if digest_of(covered_files(folder)) != manifest.digest:
        raise ModelError(
            f"{manifest.id} in {folder} is not what was prepared: a file has changed. Prepare the "
            "model again.",
            code="digest_mismatch",
        )
    progress(1.0, f"{manifest.id} is as it was prepared")
    return manifest
