"""Quality by weight format: ``python -m benchmarks.perplexity --model DIR``.

The engine's own model reads the texts (the project's own, ``inference_workers/texts``) with the
prepared weights in each format: made dense and computed in bfloat16 (the reference), the same in
float32, as they are stored, and packed anew from the dense values as ``int8`` and ``int4`` versions
are, which takes some minutes for the second. Where the source is packed already, both are second
quantisations.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from benchmarks.goals import STORED
from inference_workers import perplexity
from inference_workers.layers.linear import Matrix, Packed
from inference_workers.layers.packing import Floats
from inference_workers.layers.quantize import quantized
from inference_workers.measure import speeds
from inference_workers.models import registry
from inference_workers.models.base import CausalModel
from inference_workers.models.describe import load_tokenizer
from inference_workers.models.folder import find_weights
from inference_workers.models.loader import WeightReader, library_config
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.models.mixed import mixed
from inference_workers.models.quantize import Format, plan
from inference_workers.models.report import silent

REFERENCE, EXACT = "bfloat16", "float32"
FORMATS = (REFERENCE, EXACT, STORED, "int8", "int4")
CPU = torch.device("cpu")
QUICK_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class QualityRow:
    """``perplexity`` and ``change`` (against the reference, 0.01 is one per cent) by language, over
    ``tokens`` tokens of each; ``bytes`` of weights in memory; ``speed`` in tokens a second decoded,
    by batch, empty where this processor lacks the arithmetic."""

    format: str
    perplexity: dict[str, float]
    change: dict[str, float]
    tokens: dict[str, int]
    bytes: int
    speed: dict[str, float]


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


def table(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """A row for each format, for the benchmark's results."""
    return [asdict(row) for row in measure(folder, windows=QUICK_WINDOWS if quick else None)]


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
        dtype = torch.bfloat16 if name == REFERENCE else torch.float32
        model = registry.build(config, weights, dtype=dtype)
    del weights
    if name == REFERENCE:
        with bfloat16_products():
            return _read(name, model, texts, reference)
    speed = {str(batch): rate for batch, rate in speeds(model, folder)}
    return replace(_read(name, model, texts, reference), speed=speed)


def _read(
    name: str,
    model: CausalModel,
    texts: Mapping[str, Sequence[Sequence[int]]],
    reference: QualityRow | None,
) -> QualityRow:
    """The row of a model, without its speed."""
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
    return QualityRow(name, found, change, tokens, model.shape.bytes, {})


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Products of bfloat16 as a processor with that arithmetic makes them: added up in float32 and
    rounded once. On one without it torch takes a hundred times longer for its own."""
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        yield
        return
    linear, attention = F.linear, F.scaled_dot_product_attention
    widened: dict[int, Tensor] = {}

    def rounded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if id(weight) not in widened:
            widened[id(weight)] = weight.float()
        wide = None if bias is None else bias.float()
        return linear(x.float(), widened[id(weight)], wide).to(x.dtype)

    def attended(*heads: Tensor, attn_mask: Tensor | None, scale: float) -> Tensor:
        query, key, value = (x.float() for x in heads)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.float()
        found = attention(query, key, value, attn_mask=attn_mask, scale=scale)
        return found.to(heads[0].dtype)

    with (
        patch.object(F, "linear", rounded),
        patch.object(F, "scaled_dot_product_attention", attended),
    ):
        yield


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
    cells += [f"batch {batch} {rate:>6.1f} tokens/s" for batch, rate in row.speed.items()]
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
