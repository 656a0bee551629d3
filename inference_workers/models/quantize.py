"""``python -m inference_workers quantize``: a lighter version of a prepared model.

Projections are packed with 8 or 4 bits a weight (``layers.quantize``). With 4 bits the matrices of
the vocabulary keep 8: they would cost most of a small model's quality. A
matrix that takes so few bits already stays as it is, and so does everything that is not multiplied:
norms, biases, tables of positions.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from inference_workers.errors import ModelError
from inference_workers.layers.packing import COLUMNS, KINDS, Floats
from inference_workers.layers.quantize import kind_of, quantized_rows
from inference_workers.models import describe
from inference_workers.models.derived import derive, resolved_config
from inference_workers.models.folder import INDEX, find_weights
from inference_workers.models.loader import WeightReader, library_config
from inference_workers.models.manifest import (
    Manifest,
    Origin,
    covered_files,
    read_manifest,
    write_manifest,
)
from inference_workers.models.report import Report, reporting
from inference_workers.models.resources import require_disk
from inference_workers.models.safetensors_file import Output, TensorHeader, write_tensors
from inference_workers.models.whole import new_folder, only_one, require_id

Format = Literal["int8", "int4"]
BITS: dict[Format, int] = {"int8": 8, "int4": 4}
VOCABULARY = ("embed_tokens", "lm_head", "word_embeddings", "wte", "embed_in", "embed_out")
POSITIONS = ("embed_positions", "wpe", "position_embeddings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--path", required=True, type=Path, help="the prepared folder to start from"
    )
    parser.add_argument("--format", required=True, choices=list(BITS))
    parser.add_argument("--id", required=True, help="the lighter version's name in the catalogue")
    parser.add_argument("--out", required=True, type=Path, help="the folder to make")


def main(args: argparse.Namespace) -> int:
    return reporting(lambda report: quantize(args.path, args.format, args.id, args.out, report))


def quantize(path: Path, target: Format, model_id: str, out: Path, progress: Report) -> Manifest:
    """Make the folder ``out`` from the prepared folder ``path``, or find it ready.

    Raises:
        ModelError: the model can't be packed, or would gain nothing by it.
    """
    require_id(model_id)
    path, out = path.absolute(), out.absolute()
    origin = read_manifest(path)
    if model_id == origin.id or path == out:
        raise ModelError(
            f"{model_id} can't be a lighter version of itself: choose another id and folder.",
            code="bad_id",
        )
    require_lean(path, origin)
    with only_one(out, progress):
        ready = _ready(out, origin, target, model_id)
        if ready is None:
            ready = _make(path, origin, target, model_id, out, progress)
        progress(1.0, f"{model_id} is prepared")
        return ready


def require_lean(path: Path, origin: Manifest) -> None:
    """Raises ``ModelError`` where packed weights would not be used as they are."""
    if origin.family != "echo":
        config = resolved_config(path) or library_config(path, origin.id)
        from inference_workers.models.registry import is_lean

        if is_lean(config):
            return
    raise ModelError(
        f"{origin.id} (family {origin.family}) can't have a lighter version: nothing here "
        "multiplies its weights while they are packed. Choose a model of a lean family, such as "
        "gemma3 or llama.",
        code="not_lean",
    )


def _ready(out: Path, origin: Manifest, target: Format, model_id: str) -> Manifest | None:
    try:
        found = read_manifest(out)
        find_weights(out)
    except (ModelError, OSError):
        return None
    wanted = (model_id, target, Origin(id=origin.id, digest=origin.digest))
    whole = sum(file.stat().st_size for file in covered_files(out)) == found.bytes
    return found if whole and (found.id, found.format, found.quantized_from) == wanted else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one tensor: packed anew with ``bits``, or kept (0)."""

    name: str
    header: TensorHeader
    bits: int

    @property
    def nbytes(self) -> int:
        if self.bits:
            return kind_of(self.bits).bytes(*self.header.shape)
        return self.header.end - self.header.begin


def plan(tensors: dict[str, TensorHeader], target: Format, vocabulary: int) -> list[Plan]:
    """In the order of the names. ``vocabulary``: matrices of so many rows keep 8 bits."""
    return [
        Plan(name, header, _bits(name, header, BITS[target], vocabulary))
        for name, header in sorted(tensors.items())
    ]


def _bits(name: str, header: TensorHeader, bits: int, vocabulary: int) -> int:
    parts = name.split(".")
    if len(header.shape) != 2 or parts[-1] != "weight" or set(parts) & set(POSITIONS):
        return 0
    if header.shape[1] % COLUMNS or (not header.kind and header.dtype not in _FLOATS):
        return 0
    if header.shape[0] == vocabulary or set(parts) & set(VOCABULARY):
        bits = 8
    return bits if not header.kind or KINDS[header.kind].bits > bits else 0


_FLOATS = {"F64", "F32", "F16", "BF16"}


def _make(
    path: Path, origin: Manifest, target: Format, model_id: str, out: Path, progress: Report
) -> Manifest:
    weights = find_weights(path)
    plans = plan(weights.tensors, target, origin.vocab_size)
    if not any(item.bits for item in plans):
        raise ModelError(
            f"{origin.id} is {origin.format} already: none of its matrices takes more bits than "
            f"{target} would give it, so packing again could only lose. Choose "
            f"{'int4' if target == 'int8' else 'another model'}, or start from a model in bf16.",
            code="nothing_to_gain",
        )
    require_disk(out.parent, sum(item.nbytes for item in plans), model_id)
    with new_folder(out, model_id) as folder, WeightReader(path) as reader:
        for file in covered_files(path):
            if file not in weights.files and file.name != INDEX:
                shutil.copyfile(file, folder / file.name)
        _copy_generation(path, folder)
        told = _Told(progress.part(0.0, 0.95), sum(item.header.parameters for item in plans))
        outputs = [_output(item, reader, told) for item in plans]
        write_tensors(folder / "model.safetensors", outputs)
        progress(0.95, "Checking the files")
        found = describe.describe(
            folder, model_id=model_id, source=origin.source, commit=origin.commit, kind=origin.kind
        )
        made = Origin(id=origin.id, digest=origin.digest)
        manifest = found.model_copy(update={"format": target, "quantized_from": made})
        derive(folder)
        write_manifest(folder, manifest)
    return manifest


def _copy_generation(path: Path, folder: Path) -> None:
    name = "generation_config.json"
    if (path / name).exists():
        shutil.copyfile(path / name, folder / name)


class _Told:
    """Progress by parameters done."""

    def __init__(self, progress: Report, total: int) -> None:
        self._progress, self._total, self._done = progress, max(1, total), 0

    def __call__(self, parameters: int) -> None:
        self._done += parameters
        self._progress(self._done / self._total, "Packing the weights")


def _output(item: Plan, reader: WeightReader, told: _Told) -> Output:
    header = item.header
    if not item.bits:
        pieces = _kept(item.name, header, reader, told)
        return Output(item.name, header.dtype, header.shape, pieces, header.kind)
    pieces = _packed(item, reader, told)
    return Output(item.name, "U8", header.shape, pieces, kind_of(item.bits).name)


def _kept(
    name: str, header: TensorHeader, reader: WeightReader, told: _Told
) -> Iterator[npt.NDArray[Any]]:
    import torch

    tensor = reader[name]
    data = tensor if isinstance(tensor, torch.Tensor) else tensor.data
    yield data.contiguous().reshape(-1).view(torch.uint8).numpy()
    told(header.parameters)


def _packed(item: Plan, reader: WeightReader, told: _Told) -> Iterator[npt.NDArray[Any]]:
    rows, columns = item.header.shape
    read = _reader(item.name, reader)

    def checked(start: int, stop: int) -> Floats:
        values = read(start, stop)
        if not np.isfinite(values).all():
            raise ModelError(
                f"The tensor {item.name!r} holds values that are not finite numbers. Prepare the "
                "model again, from a good copy.",
                code="corrupt",
            )
        told((stop - start) * columns)
        return values

    yield from quantized_rows(checked, rows, columns, item.bits)


def _reader(name: str, reader: WeightReader) -> Callable[[int, int], Floats]:
    """Rows from one to another, float32."""
    import torch

    matrix = reader[name]
    if isinstance(matrix, torch.Tensor):
        dense = matrix
        return lambda start, stop: dense[start:stop].float().numpy()
    return matrix.rows_between
