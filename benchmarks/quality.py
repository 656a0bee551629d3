"""Quality beside speed: how well each weight format foretells the fixed texts, and how fast."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks import peers, perplexity, weights
from benchmarks.process import Process, SideError
from inference_workers.models.manifest import read_manifest
from inference_workers.perplexity import languages, windows

PEER = "llamacpp"
"""Reads the very file that the default model was prepared from."""


def measure(folder: Path, made: Path, peers_in: Path | None, *, quick: bool) -> dict[str, Any]:
    """Rows by format, changes against the first; last the peer's, where it is in ``peers_in``."""
    rows = perplexity.table(folder, quick=quick)
    with _peer(folder, made, peers_in) as process:
        if process is not None:
            rows.append(_peers_row(process, folder, rows[0], quick=quick))
            print(f"{rows[-1]['format']}: {rows[-1]['perplexity']}", flush=True)
    return {"reference": rows[0]["format"], "rows": rows}


@contextmanager
def _peer(folder: Path, made: Path, peers_in: Path | None) -> Iterator[Process | None]:
    found: list[peers.Peer] = []
    if peers_in is not None:
        listed = peers.candidates(
            peers_in, weights.prepared(folder, made), Path(sys.executable), bfloat16=True
        )
        found = [peer for peer in listed if peer.name == PEER]
    try:
        if not found:
            yield None
            return
        with found[0].process(1) as process:
            yield process
    except SideError as error:
        print(f"{PEER} is left out: {error}", flush=True)


def _peers_row(
    process: Process, folder: Path, reference: dict[str, Any], *, quick: bool
) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    count = perplexity.QUICK_WINDOWS if quick else None
    found, tokens = {}, {}
    for language in languages():
        texts = windows(language, tokenizer, read_manifest(folder), count)
        total = sum(float(process.ask("likelihood", prompt=ids)) for ids in texts)
        tokens[language] = sum(len(ids) - 1 for ids in texts)
        found[language] = math.exp(-total / tokens[language])
    change = {name: value / reference["perplexity"][name] - 1 for name, value in found.items()}
    about = f"{PEER}, {process.about['weights']}"
    return {"format": about, "perplexity": found, "change": change, "tokens": tokens, "peer": True}
