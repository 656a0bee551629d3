"""Quality by weight format: ``python -m benchmarks.perplexity --model DIR``.

The prepared model is read four times by the engine's own model: as dense float32 (the reference),
as it is stored, and packed anew from the dense values as ``int8`` and ``int4`` versions are, which
takes some minutes for the second. The texts are the project's own (``inference_workers/texts``).
Where the source is packed already, both are second quantisations.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer

from inference_workers import perplexity
from inference_workers.layers.linear import Matrix, Packed
from inference_workers.layers.packing import Floats
from inference_workers.layers.quantize import quantized
from inference_workers.models import registry
from inference_workers.models.describe import load_tokenizer
from inference_workers.models.folder import find_weights
from inference_workers.models.loader import WeightReader, library_config
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.models.mixed import mixed
from inference_workers.models.quantize import Format, plan
from inference_workers.models.report import silent

REFERENCE = "float32"
STORED = "as stored"
FORMATS = (REFERENCE, STORED, "int8", "int4")
CPU = torch.device("cpu")
QUICK_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class QualityRow:
    """``perplexity`` and ``change`` (against the reference, 0.01 is one per cent) by language, over
    ``tokens`` tokens of each; ``bytes`` of weights in memory."""

    format: str
    perplexity: dict[str, float]
    change: dict[str, float]
    tokens: dict[str, int]
    bytes: int


def measure(
    folder: Path,
    formats: Iterable[str] = FORMATS,
    *,
    windows: int | None = None,
    languages: Sequence[str] = (),
) -> list[QualityRow]:
    """A row for each format; a change needs the reference to be the first of them."""
    manifest = read_manifest(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = {
        language: perplexity.windows(language, tokenizer, manifest, windows)
        for language in languages or perplexity.languages()
    }
    rows: list[QualityRow] = []
    for name in formats:
        row = _row(name, folder, manifest, texts, rows[0] if rows else None)
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def table(folder: Path, *, quick: bool) -> dict[str, float]:
    """Perplexity by weight format and language, for the benchmark's results."""
    rows = measure(folder, windows=QUICK_WINDOWS if quick else None)
    return {
        f"{row.format}, {language}": value
        for row in rows
        for language, value in row.perplexity.items()
    }


def _row(
    name: str,
    folder: Path,
    manifest: Manifest,
    texts: Mapping[str, Sequence[Sequence[int]]],
    reference: QualityRow | None,
) -> QualityRow:
    with WeightReader(folder) as reader:
        weights: Mapping[str, Matrix] = reader if name == STORED else _dense(reader)
        if name in ("int8", "int4"):
            weights = _packed(weights, folder, manifest, "int8" if name == "int8" else "int4")
        config = library_config(folder, manifest.id)
        model = registry.build(config, weights, dtype=torch.float32)
    del weights
    found, change, tokens = {}, {}, {}
    for language, cut in texts.items():
        began = time.perf_counter()
        likelihood = perplexity.measure(model, cut)
        found[language] = likelihood.perplexity
        tokens[language] = likelihood.tokens
        truth = reference.perplexity[language] if reference else likelihood.perplexity
        change[language] = likelihood.perplexity / truth - 1
        spent = time.perf_counter() - began
        print(f"  {name}, {language}: {likelihood.tokens} tokens, {spent:.0f} s", file=sys.stderr)
    return QualityRow(name, found, change, tokens, model.shape.bytes)


def _dense(reader: WeightReader) -> dict[str, Matrix]:
    return {
        name: matrix.dense(torch.float32, CPU) if isinstance(matrix, Packed) else matrix.float()
        for name, matrix in ((name, reader[name]) for name in reader)
    }


def _packed(
    dense: Mapping[str, Matrix], folder: Path, manifest: Manifest, target: Format
) -> dict[str, Matrix]:
    headers = {
        name: replace(header, dtype="F32", kind="")
        for name, header in find_weights(folder).tensors.items()
    }
    plans = plan(headers, target, manifest.vocab_size)
    result = dict(dense)
    for item in plans:
        if item.bits:
            kind, data = quantized(_values(dense[item.name]), 8)
            result[item.name] = Packed(kind, torch.from_numpy(data), *item.header.shape)
    few = [item.name for item in plans if item.bits == 4]
    if not few:
        return result
    config = library_config(folder, manifest.id)
    with TemporaryDirectory() as spare:
        found = mixed(
            lambda weights: registry.build(config, weights, dtype=torch.float32),
            result,
            few,
            lambda name: _values(dense[name]),
            (load_tokenizer(folder), manifest),
            Path(spare),
            silent(),
        )
    return result | found.matrices


def _values(matrix: Matrix) -> Floats:
    assert isinstance(matrix, torch.Tensor)
    return matrix.numpy()


def _line(row: QualityRow) -> str:
    cells = [f"{row.format:<12}{row.bytes / 1e6:>8.0f} MB"]
    for language, value in row.perplexity.items():
        cells.append(f"{language} {value:>9.3f} {100 * row.change[language]:>+7.2f} %")
    return "   ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--windows", type=int, help="of each text; all, if not given")
    parser.add_argument("--languages", default="", help="en,zh; all, if not given")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    formats, languages = arguments.formats.split(","), arguments.languages
    chosen = languages.split(",") if languages else ()
    rows = measure(arguments.model, formats, windows=arguments.windows, languages=chosen)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
