"""The engine against ``transformers.generate``: decoding at several batch sizes, and prefill.

    python -m benchmarks.engine --model DIR [--batches 1,4,16,32,64] [--quick]

Both sides run in this process, on the same weights and prompts, in turn; figures are medians and
what counts is their ratio. ``DIR`` holds config.json, tokenizer.json and model*.safetensors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

from inference_workers.contract import Delta, Job, Sampling
from inference_workers.engine.engine import TorchEngine
from inference_workers.models import registry

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a small dragon who",
    "In computer science, a hash table is",
    "Dear customer, thank you for contacting us about",
)
PREFILL = 1000


@dataclass(frozen=True, slots=True)
class BenchRow:
    """Tokens per second of both sides; ``low`` and ``high`` are the engine's extremes."""

    what: str
    engine: float
    transformers: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        return self.engine / self.transformers


class Sides:
    """The same weights served twice."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        config = transformers.AutoConfig.from_pretrained(folder)
        weights: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            weights.update(load_file(file))
        self.model = registry.build(config, weights, dtype=dtype)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.reference: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.prompts = [self.tokenizer.encode(text).ids for text in PROMPTS]
        shortest = min(map(len, self.prompts))
        # One length, so that the reference's batch needs no padding: its best case.
        self.prompts = [ids[:shortest] for ids in self.prompts]

    def start(self, prompts: Sequence[Sequence[int]], tokens: int) -> TorchEngine:
        """An engine whose requests have their first token."""
        room = sum(len(p) + tokens + 32 for p in prompts)
        engine = TorchEngine(
            self.model,
            self.tokenizer,
            slots=len(prompts),
            kv_memory=room * self.model.shape.token_bytes(),
            token_budget=2048,
            reuse_prefixes=False,
        )
        sampling = Sampling(max_tokens=tokens, temperature=0, ignore_eos=True)
        for number, ids in enumerate(prompts):
            engine.add(
                Job(
                    id=str(number),
                    team="bench",
                    source="bench",
                    model="bench",
                    model_digest="",
                    input_ids=tuple(ids),
                    sampling=sampling,
                    seed=number,
                )
            )
        return engine

    def engine_decode(self, batch: int, tokens: int) -> float:
        """Tokens per second over the steps after the first token."""
        engine = self.start([self.prompts[i % 4] for i in range(batch)], tokens + 1)
        engine.step()
        began, made = time.perf_counter(), 0
        while engine.busy:
            made += sum(isinstance(event, Delta) for _, event in engine.step())
        return made / (time.perf_counter() - began)

    def reference_decode(self, batch: int, tokens: int) -> float:
        ids = torch.tensor([self.prompts[i % 4] for i in range(batch)])
        arguments: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "do_sample": False}

        def seconds(count: int) -> float:
            began = time.perf_counter()
            with torch.inference_mode():
                self.reference.generate(
                    ids, max_new_tokens=count, min_new_tokens=count, **arguments
                )
            return time.perf_counter() - began

        prefill = seconds(1)
        return batch * tokens / (seconds(tokens + 1) - prefill)

    def engine_prefill(self) -> float:
        engine = self.start([self._long()], 1)
        began = time.perf_counter()
        while engine.busy:
            engine.step()
        return PREFILL / (time.perf_counter() - began)

    def reference_prefill(self) -> float:
        ids = torch.tensor([self._long()])
        began = time.perf_counter()
        with torch.inference_mode():
            self.reference.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=1
            )
        return PREFILL / (time.perf_counter() - began)

    def _long(self) -> list[int]:
        ids = self.tokenizer.encode(" ".join(PROMPTS) * (PREFILL // 20)).ids
        return ids[:PREFILL]


def alternate(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> BenchRow:
    """Run both sides in turn, after one warm-up of each."""
    ours()
    theirs()
    figures = [(ours(), theirs()) for _ in range(rounds)]
    own, other = zip(*figures, strict=True)
    return BenchRow("", statistics.median(own), statistics.median(other), min(own), max(own))


def measure(folder: Path, batches: Sequence[int], *, quick: bool = False) -> list[BenchRow]:
    """All rows: one a batch size, then prefill."""
    sides = Sides(folder)
    tokens, rounds = (16, 2) if quick else (48, 3)
    rows: list[BenchRow] = []
    for batch in batches:
        row = alternate(
            lambda batch=batch: sides.engine_decode(batch, tokens),  # type: ignore[misc]
            lambda batch=batch: sides.reference_decode(batch, tokens),  # type: ignore[misc]
            rounds,
        )
        rows.append(BenchRow(f"decode, batch {batch}", *_figures(row)))
        print(_line(rows[-1]), flush=True)
    row = alternate(sides.engine_prefill, sides.reference_prefill, rounds)
    rows.append(BenchRow(f"prefill, {PREFILL} tokens", *_figures(row)))
    print(_line(rows[-1]), flush=True)
    return rows


def _figures(row: BenchRow) -> tuple[float, float, float, float]:
    return row.engine, row.transformers, row.low, row.high


def _line(row: BenchRow) -> str:
    return (
        f"{row.what:<24}{row.engine:>10.1f}{row.low:>10.1f}{row.high:>10.1f}"
        f"{row.transformers:>14.1f}{row.ratio:>8.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batches", default="1,4,16,32,64")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds")
    arguments = parser.parse_args()
    batches = [int(number) for number in arguments.batches.split(",")]
    heading = ("tokens/s", "engine", "low", "high", "transformers", "ratio")
    print("{:<24}{:>10}{:>10}{:>10}{:>14}{:>8}".format(*heading))
    measure(arguments.model, batches, quick=arguments.quick)


if __name__ == "__main__":
    main()
