"""What a worker reads instead of asking slow libraries: written when a model is prepared.

    vocabulary.table        the tokens' bytes, instead of parsing tokenizer.json
    config.resolved.json    the configuration with its defaults, instead of importing transformers

Each names the hash of the file that it was made from and counts only while that is still so. Where
one is missing or stale the libraries are asked: the same answer, seconds later.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from inference_workers.models.folder import CONFIG, TOKENIZER
from inference_workers.vocabulary import Table, Vocabulary

TABLE, RESOLVED = "vocabulary.table", "config.resolved.json"


def derive(folder: Path) -> None:
    """Write what is missing or stale, where there is something to gain.

    Raises:
        ModelError: tokenizer or configuration can't be read.
        OSError: the folder can't be written to.
    """
    if _stored_vocabulary(folder) is None:
        vocabulary = Vocabulary.of(Tokenizer.from_file(str(folder / TOKENIZER)))
        if vocabulary.table is not None:
            _write(folder / TABLE, _table_bytes(folder, vocabulary, vocabulary.table))
    if resolved_config(folder) is None:
        from inference_workers.models.loader import library_config
        from inference_workers.models.registry import is_ours

        config = library_config(folder, folder.name)
        if is_ours(config):
            stamped = {"of": _hash(folder / CONFIG), "config": _plain(config)}
            _write(folder / RESOLVED, json.dumps(stamped, default=str).encode())


def resolved_config(folder: Path) -> Any | None:
    """The configuration as ``derive`` wrote it, with the attributes of transformers' own."""
    try:
        stamped = json.loads((folder / RESOLVED).read_bytes())
        if stamped["of"] == _hash(folder / CONFIG):
            return _namespace(stamped["config"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def read_vocabulary(folder: Path) -> Vocabulary:
    """The folder's vocabulary, without parsing its tokenizer where ``derive`` has been."""
    stored = _stored_vocabulary(folder)
    return stored or Vocabulary.of(Tokenizer.from_file(str(folder / TOKENIZER)))


def _plain(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = config.to_dict()
    names = type(config).attribute_map
    values |= {name: getattr(config, name) for name in names}
    if "text_config" in values:
        values["text_config"] = _plain(config.text_config)
    return values


def _namespace(values: dict[str, Any]) -> SimpleNamespace:
    found = SimpleNamespace(**values)
    if "text_config" in values:
        found.text_config = _namespace(values["text_config"])
    return found


def _table_bytes(folder: Path, vocabulary: Vocabulary, table: Table) -> bytes:
    """A line of JSON, then ``ends`` as little-endian uint32, then the tokens' bytes."""
    head = {
        "of": _hash(folder / TOKENIZER),
        "tokens": len(table),
        "bytes": len(table.joined),
        "strip": table.strip,
        "strip_character": table.strip_character,
        "special": sorted(vocabulary.special),
    }
    ends = table.ends.astype("<u4").tobytes()
    return json.dumps(head).encode() + b"\n" + ends + table.joined.tobytes()


def _stored_vocabulary(folder: Path) -> Vocabulary | None:
    try:
        with (folder / TABLE).open("rb") as file:
            said = json.loads(file.readline())
            start = file.tell()
            mapped = np.memmap(file, np.uint8, "r")[start:]
        size = 4 * said["tokens"]
        whole = len(mapped) == size + said["bytes"]
        if not whole or said["of"] != _hash(folder / TOKENIZER):
            return None
        ends, joined = np.asarray(mapped[:size]).view("<u4"), np.asarray(mapped[size:])
        table = Table(joined, ends, said["strip"], said["strip_character"])
        return Vocabulary(special=said["special"], table=table, read=_reader(folder / TOKENIZER))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reader(path: Path) -> Callable[[], Tokenizer]:
    return lambda: Tokenizer.from_file(str(path))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a worker may be reading."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)
