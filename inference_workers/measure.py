"""``python -m inference_workers measure``: what a prepared model takes and gives on this machine.

JSON lines: progress, then ``{"measured": {...}}`` or one error. Meant for a process of its own:
what is measured is what this process took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inference_workers.errors import ModelError
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.models.report import Report, emit, failure, lines

if TYPE_CHECKING:
    from inference_workers.engine.engine import TorchEngine
    from inference_workers.models.base import CausalModel

BATCHES = (1, 16)
TOKENS = 24
"""Tokens that each request of a batch generates."""
TRIES = 3
"""The fastest counts: whatever else runs here only ever makes a model slower."""
PROMPT = "Dear customer, thank you for contacting us about"
WINDOWS = 6
"""Of each text, spread evenly: enough to compare two formats of one model, token by token."""
SHARE = 0.3
"""Of the progress: loading and decoding. The texts are the rest."""


@dataclass(frozen=True, slots=True)
class Measured:
    """``bits`` of a projection's weight on average, where a lighter version says so; ``bytes`` on
    the disk; ``memory`` in bytes, of weights and what reading them took, loaded and
    used; ``speed`` in tokens a second by batch, prefill left out; ``perplexity`` by language, over
    ``tokens`` tokens of each."""

    digest: str
    format: str
    bits: float | None
    bytes: int
    memory: int
    speed: dict[str, float]
    perplexity: dict[str, float]
    tokens: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", required=True, type=Path, help="the prepared folder")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="of 512 tokens, of each text")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")


def main(args: argparse.Namespace) -> int:
    report = lines(sys.stdout)
    try:
        found = measure(args.path, report, windows=args.windows, threads=args.threads)
    except ModelError as error:
        failure(sys.stdout, error)
        return 1
    emit(sys.stdout, {"measured": asdict(found)})
    return 0


def measure(path: Path, progress: Report, *, windows: int = WINDOWS, threads: int = 0) -> Measured:
    """Load the folder's model, let it decode, and let it foretell the project's texts.

    Raises:
        ModelError: it can't be loaded, or windows is less than 1.
    """
    manifest = read_manifest(path)
    if windows < 1:
        raise ModelError(f"windows: {windows} is too few. Give at least 1.", code="bad_setting")
    if manifest.family == "echo":
        raise ModelError(f"{manifest.id} has no weights to measure.", code="nothing_to_measure")
    import torch

    from inference_workers.models.loader import load

    if threads:
        torch.set_num_threads(threads)
    before = resident()
    progress(0.0, "Loading the model")
    model, _ = load(path, device="cpu")
    progress(SHARE / (len(BATCHES) + 1), "Measuring the speed")
    speed = {}
    for number, (batch, rate) in enumerate(speeds(model, path)):
        speed[str(batch)] = round(rate, 1)
        progress(SHARE * (number + 2) / (len(BATCHES) + 1), "Measuring the speed")
    memory = max(resident() - before, 0)
    perplexity, tokens = _texts(model, path, manifest, windows, progress.part(SHARE, 1.0))
    return Measured(
        digest=manifest.digest,
        format=manifest.format,
        bits=manifest.bits,
        bytes=manifest.bytes,
        memory=memory,
        speed=speed,
        perplexity=perplexity,
        tokens=tokens,
    )


def resident() -> int:
    """Bytes of memory that this process holds, mapped files included; 0 where that is unknown."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    line = next((x for x in status.splitlines() if x.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024


def speeds(model: CausalModel, path: Path) -> Iterator[tuple[int, float]]:
    """Each of ``BATCHES``, and the tokens a second that ``model`` decodes with it; ``path`` has its
    tokenizer."""
    from tokenizers import Tokenizer

    from inference_workers.engine.engine import TorchEngine

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    prompt = tuple(tokenizer.encode(PROMPT).ids)
    room = max(BATCHES) * (len(prompt) + TOKENS + 32)
    engine = TorchEngine(
        model,
        tokenizer,
        slots=max(BATCHES),
        kv_memory=room * model.shape.token_bytes(),
        reuse_prefixes=False,
    )
    for batch in BATCHES:
        yield batch, max(decode(engine, prompt, batch) for _ in range(TRIES))


def decode(engine: TorchEngine, prompt: tuple[int, ...], batch: int) -> float:
    """Tokens a second of ``batch`` greedy requests, from the end of their prefill on."""
    from inference_workers.contract import Delta, Job, Sampling

    for number in range(batch):
        engine.add(
            Job(
                id=str(number),
                team="measure",
                source="measure",
                model="measure",
                model_digest="",
                input_ids=prompt,
                sampling=Sampling(max_tokens=TOKENS + 1, temperature=0, ignore_eos=True),
                seed=number,
            )
        )
    before = engine.stats().generated_tokens
    while engine.busy and engine.stats().generated_tokens == before:
        engine.step()
    engine.step()  # the first step of this size may still build something
    began, made = time.perf_counter(), 0
    while engine.busy:
        made += sum(len(e.token_ids) for _, e in engine.step() if isinstance(e, Delta))
    return made / max(time.perf_counter() - began, 1e-9)


def _texts(
    model: CausalModel, path: Path, manifest: Manifest, count: int, progress: Report
) -> tuple[dict[str, float], int]:
    from tokenizers import Tokenizer

    from inference_workers import perplexity

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    found, tokens = {}, 0
    names = perplexity.languages()
    for number, language in enumerate(names):
        texts = perplexity.windows(language, tokenizer, manifest, count)
        part = progress.part(number / len(names), (number + 1) / len(names))
        done = 0

        def told(length: int, part: Report = part, whole: int = sum(map(len, texts))) -> None:
            nonlocal done
            done += length
            part(done / whole, "Reading the texts")

        part(0.0, "Reading the texts")
        likelihood = perplexity.measure(model, texts, told)
        found[language] = round(likelihood.perplexity, 4)
        tokens = likelihood.tokens
    return found, tokens
