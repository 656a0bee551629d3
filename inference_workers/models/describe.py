"""From a checkpoint's config, tokenizer and weights to its manifest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from tokenizers import Tokenizer

from inference_workers.errors import ModelError
from inference_workers.models.folder import (
    FAMILY_NAMES,
    TEXTS,
    TOKENIZER,
    find_weights,
    is_encoder,
    pooling_config,
    read_config,
    read_json,
    safe_file,
)
from inference_workers.models.manifest import Manifest, covered_files, digest_of
from inference_workers.models.safetensors_file import storage_format

DEFAULT_CONTEXT = 2048
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length", "n_ctx", "max_seq_len")
LONGEST = "longest_text"
"""Our own key in an encoder's config: the most tokens that its makers let a text have."""
Kind = Literal["base", "instruct", "embedding"]


def describe(
    folder: Path, *, model_id: str, source: str, commit: str | None, kind: Kind | None
) -> Manifest:
    """Check the folder's parts against each other and sum them up.

    Raises:
        ModelError: something is missing, damaged, unsafe or contradictory.
    """
    config = read_config(folder)
    weights = find_weights(folder)
    tokenizer = load_tokenizer(folder)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        architectures = [_architecture(str(config["model_type"]))]
    vocab = config.get("vocab_size")
    bos = token_id(config.get("bos_token_id"))
    generation = read_json(folder, "generation_config.json")
    eos = token_ids(generation.get("eos_token_id")) or token_ids(config.get("eos_token_id"))
    covered = covered_files(folder)
    size = config.get("hidden_size")
    try:
        return Manifest(
            id=model_id,
            source=source,
            commit=commit,
            digest=digest_of(covered),
            format=storage_format(weights.tensors.values()),
            family=FAMILY_NAMES.get(str(config["model_type"]), str(config["model_type"])),
            architecture=str(architectures[0]),
            parameters=weights.parameters,
            context_length=context_length(config),
            vocab_size=vocab if isinstance(vocab, int) else tokenizer.get_vocab_size(),
            bos_token_id=bos,
            add_bos=bos is not None and tokenizer.encode("a").ids[:1] == [bos],
            eos_token_ids=eos,
            kind=_kind(folder, config, model_id, kind),
            dimensions=size if is_encoder(config) and isinstance(size, int) else 0,
            bytes=sum(path.stat().st_size for path in covered),
            prepared_at=time.time(),
        )
    except ValidationError as error:
        raise ModelError(
            f"{model_id}'s config.json contradicts itself ({error.errors()[0]['loc'][0]}). Use a "
            "good copy of the checkpoint.",
            code="corrupt",
        ) from error


def _kind(folder: Path, config: dict[str, Any], model_id: str, kind: Kind | None) -> Kind:
    """What it is. Raises ``ModelError`` where somebody took an encoder for something else, or
    something else for one."""
    encoder = is_encoder(config)
    if kind is not None and encoder != (kind == "embedding"):
        what = "an encoder" if encoder else "a model that goes on from text"
        right = "embedding" if encoder else "base or instruct"
        raise ModelError(
            f"{model_id} is {what}, not of the kind {kind}. Add it with --kind {right}.",
            code="wrong_kind",
        )
    if encoder:
        return "embedding"
    return kind or ("instruct" if (folder / "chat_template.jinja").exists() else "base")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's ``tokenizer.json``, parsed."""
    path = safe_file(folder, TOKENIZER)
    if path is None:
        raise ModelError(
            f"{folder} has no {TOKENIZER}. Use a complete checkpoint.", code="missing_file"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever is wrong
        raise ModelError(
            f"{path} can't be read as a tokenizer. Prepare the model again, from a good copy.",
            code="corrupt",
        ) from error


def settle_chat_template(folder: Path) -> None:
    """Make sure that a template lies in ``chat_template.jinja``, wherever the source kept it."""
    if safe_file(folder, "chat_template.jinja") is not None:
        return
    template: Any = read_json(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if isinstance(template, str) and template.strip():
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def settle_tokenizer(folder: Path) -> None:
    """Make sure that there is a ``tokenizer.json``: convert an older vocabulary where needed."""
    if safe_file(folder, TOKENIZER) is not None:
        return
    if not any(safe_file(folder, name) for name in ("tokenizer.model", "vocab.json")):
        raise ModelError(
            f"{folder} has no {TOKENIZER} and nothing to make one from. Use a complete checkpoint.",
            code="missing_file",
        )
    from transformers import AutoTokenizer

    try:
        converted = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False, local_files_only=True
        )
        converted.backend_tokenizer.save(str(folder / TOKENIZER), pretty=False)
    except Exception as error:  # transformers raises whatever its many converters raise
        raise ModelError(
            f"{folder.name}'s vocabulary can't be converted to {TOKENIZER}. Use a checkpoint that "
            "has one.",
            code="unsupported_tokenizer",
        ) from error


def settle_config(folder: Path) -> None:
    """Write ``architectures`` into a config that lacks it: what builds the model goes by it."""
    config = read_config(folder)
    if isinstance(config.get("architectures"), list) and config["architectures"]:
        return
    config["architectures"] = [_architecture(str(config["model_type"]))]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def settle_encoder(folder: Path) -> None:
    """Write into an encoder's config what lies beside it: its pooling, and the longest text.

    Raises:
        ModelError: its vectors are made in a way that isn't computed here.
    """
    config = read_config(folder)
    if not is_encoder(config):
        return
    found = pooling_config(folder)
    pooling = read_json(found.parent, found.name) if found else {}
    modes = [n for n, on in pooling.items() if n.startswith("pooling_mode_") and on is True]
    ways = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if found and (len(modes) != 1 or modes[0] not in ways):
        raise ModelError(
            f"It makes its vectors by {', '.join(modes) or 'nothing known'}; here they are the "
            "mean of a text's states or its first one. Choose another encoder.",
            code="unsupported_pooling",
        )
    if modes:
        config["pooling"] = ways[modes[0]]
    longest = read_json(folder, TEXTS).get("max_seq_length")
    if isinstance(longest, int) and longest > 0:
        config[LONGEST] = min(longest, context_length(config))
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def context_length(config: dict[str, Any]) -> int:
    """The most tokens that the model was made for: prompt and answer together."""
    for key in (LONGEST, *CONTEXT_KEYS):
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return DEFAULT_CONTEXT


def token_id(value: object) -> int | None:
    """A token id where the value is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def token_ids(value: object) -> tuple[int, ...]:
    """One id, a list of ids, or nothing."""
    values = value if isinstance(value, list) else [value]
    return tuple(found for item in values if (found := token_id(item)) is not None)


def _architecture(model_type: str) -> str:
    if model_type == "gemma3_text":
        return "Gemma3ForCausalLM"
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
