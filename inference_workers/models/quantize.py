"""``python -m inference_workers quantize``: a lighter version of a prepared model.

``int8`` packs every matrix with 8 bits a weight (``layers.quantize``). ``int4`` packs projections
with 4 bits where they are enough, 5 or 8 where not (``models.mixed``), and the matrices of the
vocabulary with 8: they would cost most of a small model's quality. A matrix that takes few bits
already stays as it is (``FEW``), and so does everything that is not multiplied: norms, biases,
tables of positions.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from inference_workers.models.report import Report, reporting, silent
from inference_workers.models.resources import require_disk
from inference_workers.models.safetensors_file import Output, TensorHeader, write_tensors
from inference_workers.models.whole import new_folder, only_one, require_id

if TYPE_CHECKING:
    from inference_workers.layers.linear import Packed

Format = Literal["int8", "int4"]
BITS: dict[Format, int] = {"int8": 8, "int4": 4}
VOCABULARY = ("embed_tokens", "lm_head", "word_embeddings", "wte", "embed_in", "embed_out")
FEW: dict[Format, int] = {"int8": 8, "int4": 5}
"""A matrix stored with so many bits stays: rounding it again loses most and saves little."""
WORTH = 0.05
"""The least share of the weights' bytes that a version must save."""
WEIGHTS = "model.safetensors"
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
    """What becomes of one tensor: packed anew with ``bits``, or kept (0). 4 bits are the fewest
    that it may get."""

    name: str
    header: TensorHeader
    bits: int

    @property
    def nbytes(self) -> int:
        if self.bits:
            return kind_of(self.bits).bytes(*self.header.shape)
        return stored(self.header)


def stored(header: TensorHeader) -> int:
    """Bytes of a tensor as it is."""
    return header.end - header.begin


def plan(tensors: dict[str, TensorHeader], target: Format, vocabulary: int) -> list[Plan]:
    """In the order of the names. ``vocabulary``: matrices of so many rows keep 8 bits."""
    return [
        Plan(name, header, _bits(name, header, target, vocabulary))
        for name, header in sorted(tensors.items())
    ]


def _bits(name: str, header: TensorHeader, target: Format, vocabulary: int) -> int:
    parts = name.split(".")
    if len(header.shape) != 2 or parts[-1] != "weight" or set(parts) & set(POSITIONS):
        return 0
    if header.shape[1] % COLUMNS or (not header.kind and header.dtype not in _FLOATS):
        return 0
    if _of_vocabulary(name, header.shape, vocabulary):
        target = "int8"
    return BITS[target] if not header.kind or KINDS[header.kind].bits > FEW[target] else 0


def _of_vocabulary(name: str, shape: Sequence[int], vocabulary: int) -> bool:
    return shape[0] == vocabulary or bool(set(name.split(".")) & set(VOCABULARY))


_FLOATS = {"F64", "F32", "F16", "BF16"}


def _make(
    path: Path, origin: Manifest, target: Format, model_id: str, out: Path, progress: Report
) -> Manifest:
    weights = find_weights(path)
    plans = plan(weights.tensors, target, origin.vocab_size)
    require_gain(plans, origin, target)
    require_disk(out.parent, 2 * sum(item.nbytes for item in plans), model_id)
    with new_folder(out, model_id) as folder:
        for file in covered_files(path):
            if file not in weights.files and file.name != INDEX:
                shutil.copyfile(file, folder / file.name)
        _copy_generation(path, folder)
        bits = 0.0
        if target == "int4" and any(item.bits == 4 for item in plans):
            bits = fit(path, origin, plans, folder, progress.part(0.0, 0.95))
        else:
            with WeightReader(path) as reader:
                pack(plans, reader, folder, progress.part(0.0, 0.95))
        progress(0.95, "Checking the files")
        found = describe.describe(
            folder, model_id=model_id, source=origin.source, commit=origin.commit, kind=origin.kind
        )
        made = Origin(id=origin.id, digest=origin.digest)
        manifest = found.model_copy(
            update={"format": target, "quantized_from": made, "bits": bits or None}
        )
        derive(folder)
        write_manifest(folder, manifest)
    return manifest


def require_gain(plans: Sequence[Plan], origin: Manifest, target: Format) -> None:
    """Raises ``ModelError`` where a version would hardly be smaller."""
    before = sum(stored(item.header) for item in plans)
    saved = before - sum(item.nbytes for item in plans)
    if saved >= WORTH * before:
        return
    if any(item.bits for item in plans):
        what = (
            f"most of its matrices have no more than {FEW[target]} bits a weight, and packing the "
            f"others again would save {saved / 1e6:.1f} MB at the most of {before / 1e6:.0f} MB "
            f"({100 * saved / before:.1f} %)"
        )
    else:
        what = f"none of its matrices takes more bits than {target} would give it"
    other = "int4" if target == "int8" else "another model"
    raise ModelError(
        f"{origin.id} is {origin.format} already: {what}, so packing again could only lose. Choose "
        f"{other}, or start from a model in bf16.",
        code="nothing_to_gain",
    )


def pack(plans: Sequence[Plan], reader: WeightReader, folder: Path, progress: Report) -> None:
    """Write ``model.safetensors``, everything as it is planned."""
    told = Told(progress, sum(p.header.parameters for p in plans))
    write_tensors(folder / WEIGHTS, [_output(item, reader, told) for item in plans])


def fit(
    path: Path, origin: Manifest, plans: Sequence[Plan], folder: Path, progress: Report
) -> float:
    """Write ``model.safetensors`` with projections in 4 bits where they are enough; answers how
    many a projection's weight takes on average, scales included."""
    import torch

    from inference_workers.models import registry
    from inference_workers.models.mixed import mixed

    config = resolved_config(path) or library_config(path, origin.id)
    words = describe.load_tokenizer(path), origin
    few = [item.name for item in plans if item.bits == 4]
    spare = folder / "spare"
    spare.mkdir()
    try:
        with WeightReader(path) as reader:
            # With 8 bits it reads as well as in full, takes a quarter of that and is faster.
            pack([_eight(item) for item in plans], reader, spare, progress.part(0.0, 0.1))
            with WeightReader(spare) as reference:
                found = mixed(
                    lambda weights: registry.build(config, weights, dtype=torch.float32),
                    {name: reference[name] for name in reference},
                    few,
                    lambda name: _whole(name, reader),
                    words,
                    spare,
                    progress.part(0.1, 0.95),
                )
                outputs = _mixed_outputs(find_weights(spare).tensors, found.matrices, reference)
                write_tensors(folder / WEIGHTS, outputs)
    finally:
        shutil.rmtree(spare)
    vocabulary = origin.vocab_size
    projections = [o for o in outputs if o.kind and not _of_vocabulary(o.name, o.shape, vocabulary)]
    weights = sum(math.prod(output.shape) for output in projections)
    return round(8 * sum(output.nbytes for output in projections) / weights, 2)


def _eight(item: Plan) -> Plan:
    """The tensor with 8 bits, or as few as it has."""
    keep = not item.bits or (item.header.kind and KINDS[item.header.kind].bits == 8)
    return replace(item, bits=0 if keep else 8)


def _mixed_outputs(
    headers: dict[str, TensorHeader], few: Mapping[str, Packed], reference: WeightReader
) -> list[Output]:
    nobody = Told(silent(), 1)
    return [
        Output(name, "U8", header.shape, [few[name].data.numpy()], few[name].kind.name)
        if name in few
        else _output(Plan(name, header, 0), reference, nobody)
        for name, header in headers.items()
    ]


def _copy_generation(path: Path, folder: Path) -> None:
    name = "generation_config.json"
    if (path / name).exists():
        shutil.copyfile(path / name, folder / name)


class Told:
    """Progress by parameters done."""

    def __init__(self, progress: Report, total: int) -> None:
        self._progress, self._total, self._done = progress, max(1, total), 0

    def __call__(self, parameters: int) -> None:
        self._done += parameters
        self._progress(self._done / self._total, "Packing the weights")


def _output(item: Plan, reader: WeightReader, told: Told) -> Output:
    header = item.header
    if not item.bits:
        pieces = _kept(item.name, header, reader, told)
        return Output(item.name, header.dtype, header.shape, pieces, header.kind)
    pieces = _packed(item, reader, told)
    return Output(item.name, "U8", header.shape, pieces, kind_of(item.bits).name)


def _kept(
    name: str, header: TensorHeader, reader: WeightReader, told: Told
) -> Iterator[npt.NDArray[Any]]:
    import torch

    tensor = reader[name]
    data = tensor if isinstance(tensor, torch.Tensor) else tensor.data
    yield data.contiguous().reshape(-1).view(torch.uint8).numpy()
    told(header.parameters)


def _packed(item: Plan, reader: WeightReader, told: Told) -> Iterator[npt.NDArray[Any]]:
    rows, columns = item.header.shape
    read = _reader(item.name, reader)

    def checked(start: int, stop: int) -> Floats:
        values = _finite(item.name, read(start, stop))
        told((stop - start) * columns)
        return values

    yield from quantized_rows(checked, rows, columns, item.bits)


def _finite(name: str, values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise ModelError(
            f"The tensor {name!r} holds values that are not finite numbers. Prepare the model "
            "again, from a good copy.",
            code="corrupt",
        )
    return values


def _whole(name: str, reader: WeightReader) -> Floats:
    rows, _ = reader[name].shape
    return _finite(name, _reader(name, reader)(0, rows))


def _reader(name: str, reader: WeightReader) -> Callable[[int, int], Floats]:
    """Rows from one to another, float32."""
    import torch

    matrix = reader[name]
    if isinstance(matrix, torch.Tensor):
        dense = matrix
        return lambda start, stop: dense[start:stop].float().numpy()
    return matrix.rows_between
