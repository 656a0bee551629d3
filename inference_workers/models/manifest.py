"""What a prepared model folder says about itself: ``manifest.json``, written last, read first."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference_workers.errors import ModelError

FILE_NAME = "manifest.json"
MAX_BYTES = 64 * 1024
_BLOCK = 1 << 20


class Origin(BaseModel):
    """The prepared model that a lighter one was made from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    digest: str


class Manifest(BaseModel):
    """A prepared model, complete.

    ``commit`` is the hub's exact commit, or ``None`` where there is none. ``digest`` names weights,
    config and tokenizer (see ``digest_of``). ``format`` is how most parameters are stored, or of a
    lighter version (``quantized_from``) how its layers' are: ``int4`` is 4 bits where they are
    enough, 5 or 8 where not, ``bits`` a weight of its projections on average, scales included.
    ``family`` is the layer module's name; ``bytes`` the size of all files that the digest covers;
    ``prepared_at`` a UNIX time in seconds. An encoder (``kind`` embedding) makes vectors of
    ``dimensions`` numbers, of texts of up to ``context_length`` tokens.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    source: str
    commit: str | None = None
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    format: Literal["bf16", "fp16", "fp32", "int8", "int4", "none"]
    family: str
    architecture: str
    parameters: int = Field(ge=0)
    context_length: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    bos_token_id: int | None = None
    add_bos: bool = False
    eos_token_ids: tuple[int, ...] = ()
    kind: Literal["base", "instruct", "embedding"] = "base"
    dimensions: int = Field(default=0, ge=0)
    bytes: int = Field(ge=0)
    prepared_at: float
    quantized_from: Origin | None = None
    bits: float | None = None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        ModelError: there is none, or it can't be read.
    """
    path = folder / FILE_NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(
                f"{path} is absurdly large for a manifest. Prepare the model again.", code="corrupt"
            )
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a prepared model: it has no {FILE_NAME}. Prepare the model first.",
            code="not_prepared",
        ) from None
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"{path} can't be read. Prepare the model again.", code="corrupt"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it and flush it to the disk."""
    with (folder / FILE_NAME).open("w", encoding="utf-8") as file:
        file.write(
            json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
        )
        file.flush()
        os.fsync(file.fileno())


def covered_files(folder: Path) -> list[Path]:
    """The files that the digest covers, sorted by name."""
    names = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors.index.json"}
    return sorted(
        (p for p in folder.iterdir() if p.name in names or p.suffix == ".safetensors"),
        key=lambda path: path.name,
    )


def digest_of(files: Iterable[Path]) -> str:
    """``sha256:`` and the hash of what ``sha256sum`` prints for the files, sorted by name."""
    lines = [f"{_file_hash(path)}  {path.name}\n" for path in sorted(files, key=lambda p: p.name)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def summary(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain JSON values, for a line of output."""
    return manifest.model_dump(mode="json")
