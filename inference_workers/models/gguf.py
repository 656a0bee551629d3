"""A GGUF file becomes an ordinary model folder: safetensors, config, tokenizer.

Quantised matrices keep their codes (``gguf_blocks``), other tensors become bfloat16, and those of
one dimension stay float32: norms are small, and what they were trained to is not rounded.

Whatever llama.cpp's converter did to names and values is undone here (``gguf_families``), so that
nothing after this module needs to know where a model came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_workers.errors import ModelError
from inference_workers.layers.packing import Kind
from inference_workers.models.gguf_blocks import packed, packed_kind
from inference_workers.models.gguf_families import (
    FAMILIES,
    ROPE_FREQS,
    Array,
    Config,
    Family,
    layer_count,
)
from inference_workers.models.gguf_file import GgufFile, TensorInfo
from inference_workers.models.gguf_tokenizer import build_tokenizer
from inference_workers.models.safetensors_file import Output, to_bf16, write_tensors

Progress = Callable[[float, str], None]


def convert(path: Path, out: Path, progress: Progress) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``tokenizer.json`` (and a chat template, if
    the file has one) into the folder ``out``. Needs about 100 MB besides the vocabulary.

    Raises:
        ModelError: the architecture isn't known, or the file is damaged or incomplete.
    """
    try:
        _convert(path, out, progress)
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        raise ModelError(
            f"{path.name} is damaged: its entries make no sense together. Fetch it again.",
            code="corrupt",
        ) from error


def _convert(path: Path, out: Path, progress: Progress) -> None:
    with GgufFile(path) as file:
        architecture = str(file.require("general.architecture"))
        family = FAMILIES.get(architecture)
        if family is None:
            raise ModelError(
                f"{path.name} holds a model of architecture {architecture!r}; GGUF files of "
                f"{', '.join(sorted(FAMILIES))} can be read. Use the model's safetensors "
                "checkpoint instead.",
                code="unknown_architecture",
            )
        config = family.config(file, architecture)
        tensors = _named_tensors(file, family, config, layer_count(file, architecture))
        progress(0.0, "Building the tokenizer")
        tokenizer = build_tokenizer(architecture, file.metadata)
        tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        progress(0.2, "Converting the weights")
        total = sum(info.parameters for _, info in tensors) or 1
        done = 0

        def told(name: str, info: TensorInfo, kind: Kind | None) -> Iterator[npt.NDArray[Any]]:
            nonlocal done
            yield from _stored(file, family, config, name, info, kind)
            done += info.parameters
            progress(0.2 + 0.8 * done / total, "Converting the weights")

        outputs = []
        for name, info in tensors:
            kind = packed_kind(info.type_name) if len(info.shape) == 2 else None
            dtype = "F32" if len(info.shape) == 1 else "U8" if kind else "BF16"
            pieces = told(name, info, kind)
            outputs.append(Output(name, dtype, info.shape, pieces, kind.name if kind else ""))
        write_tensors(out / "model.safetensors", outputs)
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        template = file.metadata.get("tokenizer.chat_template")
        if isinstance(template, str) and template:
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _named_tensors(
    file: GgufFile, family: Family, config: Config, layers: int
) -> list[tuple[str, TensorInfo]]:
    named = []
    for info in file.tensors.values():
        if info.name == ROPE_FREQS and config.get("rope_parameters", {}).get("rope_type"):
            continue  # The configuration says the same.
        name = _hf_name(info.name, family)
        if name is None:
            raise ModelError(
                f"{file.path.name} holds the tensor {info.name!r}, which this model's layers have "
                "no place for. Use the model's safetensors checkpoint instead.",
                code="unsupported_tensor",
            )
        named.append((name, info))
    layer = re.compile(re.escape(family.layers) + r"\.(\d+)\.")
    found = {int(match[1]) for name, _ in named if (match := layer.match(name))}
    embedding = f"{family.names['token_embd']}.weight"
    if found != set(range(layers)) or not any(name == embedding for name, _ in named):
        raise ModelError(
            f"{file.path.name} is incomplete: layers or the embedding are missing. Fetch it again.",
            code="missing_weights",
        )
    return named


def _hf_name(name: str, family: Family) -> str | None:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?([a-z0-9_]+)\.(weight|bias)", name)
    if match is None or match[2] not in family.names:
        return None
    prefix = "" if match[1] is None else f"{family.layers}.{match[1]}."
    return f"{prefix}{family.names[match[2]]}.{match[3]}"


def _stored(
    file: GgufFile,
    family: Family,
    config: Config,
    name: str,
    info: TensorInfo,
    kind: Kind | None,
) -> Iterator[npt.NDArray[Any]]:
    """A tensor's bytes as they are written."""
    if kind is not None:
        raw = file.raw(info)
        if family.reorder is not None and name.endswith(family.reordered):
            # Rows are blocks of their own: they change places as they are.
            raw = family.reorder(name, raw, config)
        yield packed(info.type_name, raw)
        return
    for piece in _values(file, family, config, name, info):
        yield piece if len(info.shape) == 1 else to_bf16(piece)


def _values(
    file: GgufFile, family: Family, config: Config, name: str, info: TensorInfo
) -> Iterator[Array]:
    if family.reorder is not None and name.endswith(family.reordered):
        yield family.reorder(name, np.concatenate(list(file.rows(info))), config)
        return
    offset = np.float32(family.norm_offset if name.endswith("norm.weight") else 0.0)
    for piece in file.rows(info):
        yield piece - offset if offset else piece
