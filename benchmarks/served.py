"""Our own side, in a process of its own: the engine as a worker serves it, and what it is made of.

    python -m benchmarks.served FOLDER [--slots 64]

Answers ``driver``'s commands and more: what a prompt does to running streams, what a shared
instruction saves, and the machine's peaks by our own kernels. One engine fills the whole table.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from benchmarks import driver, peaks
from inference_workers.contract import Delta, Guide, Job, Sampling
from inference_workers.engine.engine import DEFAULT_KV_MEMORY, TorchEngine
from inference_workers.models.loader import load
from inference_workers.models.manifest import read_manifest
from inference_workers.native import kernels

TAIL = 20
GUIDE = Guide(
    kind="json_schema",
    text='{"type": "object", "properties": {'
    '"name": {"type": "string"}, "age": {"type": "integer"}, '
    '"tags": {"type": "array", "items": {"type": "string"}, "minItems": 3}, '
    '"note": {"type": "string", "minLength": 1000}}, "required": ["name", "age", "tags", "note"]}',
)
"""An answer longer than what is measured, of keys, numbers and free text."""
"""Tokens of a request after the instruction that it shares with others."""


class Served(driver.Side):
    """One engine, asked for one figure at a time."""

    def __init__(self, folder: Path, slots: int, kv_memory: int = DEFAULT_KV_MEMORY) -> None:
        manifest = read_manifest(folder)
        model, _ = load(folder, device="cpu")
        self.version = str(torch.__version__)
        self.weights = manifest.format
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._engine = TorchEngine(
            model,
            self._tokenizer,
            eos_token_ids=manifest.eos_token_ids,
            slots=slots,
            kv_memory=kv_memory,
            digest=manifest.digest,
            context_length=manifest.context_length,
        )
        self._model, self._numbers = model, itertools.count()
        self._rng = random.Random(1)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> None:
        self._add(prompts, tokens)
        self._run(lambda job, now: None)

    def decode(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Seconds of ``tokens`` tokens for every prompt after all have their first."""
        waiting = set(self._add(prompts, tokens + 1))
        while waiting:
            waiting -= {job for job, event in self._engine.step() if isinstance(event, Delta)}
        began = time.perf_counter()
        self._run(lambda job, now: None)
        return time.perf_counter() - began

    def throughput(self, texts: Sequence[str], tokens: int) -> float:
        """Tokens a second from handing texts over to the last token, prompts included."""
        began = time.perf_counter()
        self.generate([self.encode(text) for text in texts], tokens)
        return tokens * len(texts) / (time.perf_counter() - began)

    def first_token(self, text: str) -> float:
        """Seconds from handing one text over to its first token."""
        return self._first(self.encode(text))

    def arrival(self, prompts: Sequence[Sequence[int]], long: Sequence[int], tokens: int) -> Any:
        """``long`` arrives while ``prompts`` decode: ``gaps``, the seconds between two tokens of
        each of them over ``tokens`` tokens in whose midst it came, ``usual``, the same before it
        came, and ``first``, the seconds to its own first token."""
        streams = self._add(prompts, 2 * tokens + 8)
        seen: dict[str, list[float]] = {job: [] for job in streams}

        def until(count: int) -> None:
            while min(len(times) for times in seen.values()) < count:
                self._step(lambda job, now: seen[job].append(now) if job in seen else None)

        until(tokens)
        before = {job: len(times) for job, times in seen.items()}
        arrived = time.perf_counter()
        (newcomer,) = self._add([long], 2)
        seen[newcomer] = []
        until(1)
        first = seen.pop(newcomer)[0] - arrived
        until(2 * tokens)
        self._run(lambda job, now: None)
        return {
            "first": first,
            "usual": [gap for job in streams for gap in _gaps(seen[job][: before[job]])],
            "gaps": [gap for job in streams for gap in _gaps(seen[job][before[job] - 1 :])],
        }

    def shared(self, instruction: int, requests: int) -> Any:
        """First tokens of requests with an instruction of so many tokens, of which each is new:
        ``cold`` (seconds), and again by another request: ``warm``, of whose ``lookups`` tokens
        ``hits`` were found."""
        found: dict[str, Any] = {"cold": [], "warm": [], "hits": 0, "lookups": 0}
        self._first(self._random(instruction + TAIL))
        for _ in range(requests):
            said, salt = self._random(instruction), f"instruction-{next(self._numbers)}"
            prefixes = ((salt, instruction),)
            found["cold"].append(self._first([*said, *self._random(TAIL)], prefixes))
            before = self._engine.stats()
            found["warm"].append(self._first([*said, *self._random(TAIL)], prefixes))
            after = self._engine.stats()
            found["hits"] += after.prefix_hits - before.prefix_hits
            found["lookups"] += after.prefix_lookups - before.prefix_lookups
        return found

    def guided(self, prompts: Sequence[Sequence[int]], tokens: int, rounds: int) -> Any:
        """Gaps between two tokens of plain requests while as many others decode beside them, in
        turn: ``plain`` ones, and such that a JSON schema guides."""
        found: dict[str, list[float]] = {"plain": [], "guided": []}
        for _ in range(rounds):
            for name, guide in (("plain", None), ("guided", GUIDE)):
                streams = self._add(prompts, tokens)
                seen: dict[str, list[float]] = {job: [] for job in streams}
                beside = set(self._add(prompts, tokens, guide=guide))
                while beside:  # until each has its first token: a guide is compiled first
                    beside -= {j for j, e in self._engine.step() if isinstance(e, Delta)}
                self._run(lambda job, now, seen=seen: seen.get(job, []).append(now))
                found[name] += [gap for times in seen.values() for gap in _gaps(times)]
        return found

    def peaks(self) -> dict[str, float]:
        """See ``peaks.measure``."""
        return peaks.measure()

    def describe(self) -> dict[str, Any]:
        """What the roofline needs to know of the engine."""
        shape = self._model.shape
        return {
            "kernels": kernels() is not None,
            "dtype_bytes": shape.dtype.itemsize,
            "cache_bytes": shape.cache_dtype.itemsize,
            "layers": [[layer.values(), layer.window] for layer in shape.layers],
            "model_bytes": shape.bytes,
            "threads": torch.get_num_threads(),
        }

    def _random(self, count: int) -> list[int]:
        vocabulary = self._model.shape.vocabulary
        return [self._rng.randrange(vocabulary // 256, vocabulary // 2) for _ in range(count)]

    def _first(self, ids: Sequence[int], prefixes: tuple[tuple[str, int], ...] = ()) -> float:
        began, seen = time.perf_counter(), []
        self._add([ids], 2, prefixes)
        self._run(lambda job, now: seen.append(now))
        return seen[0] - began

    def _add(
        self,
        prompts: Sequence[Sequence[int]],
        tokens: int,
        prefixes: tuple[tuple[str, int], ...] = (),
        guide: Guide | None = None,
    ) -> list[str]:
        """Hand requests over; their names. Prompts share nothing but ``prefixes``."""
        sampling = Sampling(max_tokens=tokens, temperature=0, ignore_eos=guide is None, guide=guide)
        names = [str(next(self._numbers)) for _ in prompts]
        for name, ids in zip(names, prompts, strict=True):
            self._engine.add(
                Job(
                    id=name,
                    team="bench",
                    source="bench",
                    model="bench",
                    model_digest="",
                    input_ids=tuple(ids),
                    prefixes=prefixes,
                    sampling=sampling,
                    seed=1,
                )
            )
        return names

    def _step(self, token: Callable[[str, float], None]) -> None:
        events = self._engine.step()
        now = time.perf_counter()
        for job, event in events:
            if isinstance(event, Delta):
                token(job, now)

    def _run(self, token: Callable[[str, float], None]) -> None:
        while self._engine.busy:
            self._step(token)


def _gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slots", type=int, default=64)
    given = parser.parse_args()
    return driver.serve(lambda: Served(given.folder, given.slots))


if __name__ == "__main__":
    sys.exit(main())
