"""Is this folder a model that is safe and complete? The same questions for every source.

Nothing in a model folder may run: pickled weights, ``auto_map`` (code that a checkpoint brings
along) and links that leave the folder are refused before anything is parsed by a library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_workers.errors import ModelError
from inference_workers.models.safetensors_file import TensorHeader, read_header

CONFIG, TOKENIZER, INDEX = "config.json", "tokenizer.json", "model.safetensors.index.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
MAX_SIZES = {
    CONFIG: 1 << 20,
    TOKENIZER: 128 << 20,
    INDEX: 32 << 20,
    "tokenizer_config.json": 16 << 20,
    "generation_config.json": 1 << 20,
    "special_tokens_map.json": 1 << 20,
    "sentence_bert_config.json": 1 << 20,
    "chat_template.jinja": 1 << 20,
    "tokenizer.model": 64 << 20,
    "vocab.json": 64 << 20,
    "merges.txt": 64 << 20,
}
"""The small files that a source may bring along, and how large each may be, in bytes."""
POOLING, TEXTS = "1_Pooling", "sentence_bert_config.json"
"""What an encoder's source may say besides: in ``1_Pooling/config.json`` how a text's states become
its vector, in the other file how long a text may be."""

FAMILY_NAMES = {"gemma3_text": "gemma3"}
LEAN_TYPES = {"gemma3_text", "llama", "mistral", "qwen2", "qwen3", "opt", "bloom", "echo"}
ENCODER_TYPES = {"bert"}


@dataclass(frozen=True, slots=True)
class Weights:
    """Weight files by name, and every tensor's header by tensor name."""

    files: tuple[Path, ...]
    tensors: dict[str, TensorHeader]

    @property
    def parameters(self) -> int:
        return sum(header.parameters for header in self.tensors.values())


def safe_file(folder: Path, name: str) -> Path | None:
    """The regular file ``name`` directly in ``folder``; ``None`` where there is none.

    Raises:
        ModelError: the name or a link leads out of the folder, or the file is absurdly large.
    """
    if not name or name != Path(name).name or name in {".", ".."} or "\\" in name or "\0" in name:
        raise ModelError(
            f"{folder.name} refers to {name!r}, which is not a file in its own folder. Use a "
            "checkpoint whose files lie side by side.",
            code="unsafe_path",
        )
    path = folder / name
    if not path.exists():
        return None
    if path.resolve().parent != folder.resolve():
        raise ModelError(
            f"{path} is a link that leaves its folder. Copy the real file there and try again.",
            code="unsafe_path",
        )
    if not path.is_file():
        raise ModelError(f"{path} is not an ordinary file.", code="unsafe_path")
    limit = MAX_SIZES.get(name)
    if limit is not None and path.stat().st_size > limit:
        raise ModelError(
            f"{path} has {path.stat().st_size:,} bytes; at most {limit:,} make sense. Use a good "
            "copy of the checkpoint.",
            code="too_large",
        )
    return path


def read_json(folder: Path, name: str, *, required: bool = False) -> dict[str, Any]:
    """A small JSON object from the folder; ``{}`` where an optional one is missing."""
    path = safe_file(folder, name)
    if path is None:
        if required:
            raise ModelError(
                f"{folder} has no {name}. Use a complete checkpoint: config.json, tokenizer.json "
                "and safetensors weights.",
                code="missing_file",
            )
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, "it is not a JSON object")
    return value


def pooling_config(folder: Path) -> Path | None:
    """The file that says how an encoder pools; ``None`` where there is none.

    Raises:
        ModelError: as ``safe_file``.
    """
    inside = folder / POOLING
    if inside.is_symlink():
        raise ModelError(
            f"{inside} is a link. Copy the real folder there and try again.", code="unsafe_path"
        )
    return safe_file(inside, CONFIG)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``, refused where it wants to run code or names no architecture we can build."""
    config = read_json(folder, CONFIG, required=True)
    for name, value in ((CONFIG, config), ("tokenizer_config.json", None)):
        content = value if value is not None else read_json(folder, name)
        if "auto_map" in content:
            raise ModelError(
                f"{folder.name} brings its own code (auto_map in {name}), which is never run. Use "
                "a checkpoint whose architecture is built in.",
                code="remote_code",
            )
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not _known(model_type):
        raise ModelError(
            f"{folder.name} has the unknown architecture {model_type!r}. Use a causal language "
            "model that the installed transformers release knows, or an encoder: "
            f"{', '.join(sorted(ENCODER_TYPES))}.",
            code="unknown_architecture",
        )
    return config


def _known(model_type: str) -> bool:
    if model_type in LEAN_TYPES | ENCODER_TYPES:
        return True
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a model which makes vectors of texts."""
    return config.get("model_type") in ENCODER_TYPES and not config.get("is_decoder")


def find_weights(folder: Path) -> Weights:
    """The folder's safetensors files, every header checked, and an index checked against them."""
    names = _weight_names(folder)
    files, tensors = [], {}
    for name in names:
        path = safe_file(folder, name)
        if path is None:
            raise ModelError(
                f"{folder} lacks the weight file {name}. Fetch it again, whole.",
                code="missing_file",
            )
        files.append(path)
        for tensor, header in read_header(path).items():
            if tensor in tensors:
                raise _damaged(path, f"tensor {tensor!r} is in two files")
            tensors[tensor] = header
    _check_index(folder, tensors)
    return Weights(tuple(files), tensors)


def _weight_names(folder: Path) -> list[str]:
    if index := _weight_map(folder):
        return sorted(set(index.values()))
    found = sorted(p.name for p in folder.iterdir() if p.suffix == ".safetensors")
    if "model.safetensors" in found:
        return ["model.safetensors"]
    if len(found) == 1:
        return found
    if found:
        raise ModelError(
            f"{folder} has several weight files and no {INDEX}. Add the index of the checkpoint.",
            code="missing_file",
        )
    if any(p.suffix in PICKLES for p in folder.iterdir()):
        raise ModelError(
            f"{folder.name} has pickled weights only. Loading a pickle runs code that it contains, "
            "so it is never done. Convert it to safetensors, or choose a checkpoint that has them.",
            code="pickle",
        )
    raise ModelError(
        f"{folder} has no safetensors weights. Use a complete checkpoint.", code="missing_file"
    )


def _weight_map(folder: Path) -> Mapping[str, str]:
    index = read_json(folder, INDEX)
    if not index:
        return {}
    mapping = index.get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise _damaged(folder / INDEX, "it has no weight_map")
    for name in mapping.values():
        if not isinstance(name, str) or not name.endswith(".safetensors"):
            raise ModelError(
                f"{folder / INDEX} points to {name!r}, which is not a safetensors file. Use a "
                "safetensors checkpoint.",
                code="unsafe_path",
            )
    return mapping


def _check_index(folder: Path, tensors: Mapping[str, TensorHeader]) -> None:
    if missing := [name for name in _weight_map(folder) if name not in tensors]:
        raise _damaged(folder / INDEX, f"tensor {missing[0]!r} is in none of the weight files")


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is damaged: {why}. Prepare the model again, from a good copy.", code="corrupt"
    )
