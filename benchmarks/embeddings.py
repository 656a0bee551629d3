"""Texts a second of the encoder, against transformers' own module on the same weights.

    python -m benchmarks.embeddings llmasos|transformers FOLDER    one side, in a process of its own

Both get the same texts as token ids and give vectors of length 1 back. Ours goes through the
engine, events included; transformers' is sorted by length and cut into padded batches as
Sentence-BERT does, or is one batch: whichever was faster when it was warmed up.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import driver
from benchmarks.process import Process
from benchmarks.turns import in_turn

OURS, PEER = "llmasos", "transformers"
WORDS = Path(__file__).parent.parent / "inference_workers" / "texts" / "en.txt"
COUNT = 64
KINDS = {"short": (6, 20), "of about 200 tokens": (110, 190)}
"""Words of a text, at least and at most."""
BATCH = 32
Ids = list[list[int]]


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Rows for ``docs/performance.md``. Raises ``SideError``."""
    rounds = 3 if quick else 9
    command = [sys.executable, "-m", "benchmarks.embeddings"]
    with (
        Process(OURS, [*command, OURS, folder]) as ours,
        Process(PEER, [*command, PEER, folder]) as peer,
    ):
        rows = []
        for kind, words in KINDS.items():
            texts: Ids = ours.ask("encode", texts=_texts(*words))
            for side in (ours, peer):
                side.ask("warm", texts=texts)
            sides = {
                name: partial(_rate, side, texts) for name, side in ((OURS, ours), (PEER, peer))
            }
            samples = in_turn(sides, rounds)
            row = {
                "what": f"{COUNT} texts, {kind}",
                "tokens": sum(map(len, texts)) / COUNT,
                "texts_per_second": {name: sample.as_dict() for name, sample in samples.items()},
                "ratio": samples[OURS].median / samples[PEER].median,
            }
            rows.append(row)
            print(line(row), flush=True)
        return {"rows": rows, "sides": {OURS: ours.about, PEER: peer.about}}


def line(row: dict[str, Any]) -> str:
    rates = "".join(f"{s['median']:>16.1f}" for s in row["texts_per_second"].values())
    return f"{row['what']:<34}{rates}{row['ratio']:>8.2f}"


def _rate(side: Process, texts: Ids) -> float:
    return len(texts) / float(side.ask("embed", texts=texts))


def _texts(least: int, most: int) -> list[str]:
    """Pieces of a real text, of all lengths in between."""
    words, draw = WORDS.read_text(encoding="utf-8").split(), random.Random(1)
    return [
        " ".join(words[(start := draw.randrange(len(words) - most)) : start + size])
        for size in (draw.randint(least, most) for _ in range(COUNT))
    ]


class Ours(driver.Side):
    """The engine as a worker serves it."""

    def __init__(self, folder: Path) -> None:
        import torch
        from tokenizers import Tokenizer

        from inference_workers.engine.encoder import EncoderEngine
        from inference_workers.models.loader import load

        model, manifest = load(folder, device="cpu")
        self.version, self.weights = str(torch.__version__), manifest.format
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._longest = manifest.context_length
        self._engine = EncoderEngine(model)

    def encode(self, texts: Sequence[str]) -> Ids:
        return [list(self._tokenizer.encode(text).ids[: self._longest]) for text in texts]

    def warm(self, texts: Ids) -> None:
        for _ in range(2):
            self.embed(texts)

    def embed(self, texts: Ids) -> float:
        """Seconds from handing the texts over to the last vector."""
        from inference_workers.contract import Embedded, Job, Sampling

        job = Job(
            id="bench",
            team="bench",
            source="bench",
            model="bench",
            model_digest="",
            input_ids=tuple(token for text in texts for token in text),
            lengths=tuple(map(len, texts)),
            sampling=Sampling(max_tokens=0),
            seed=1,
        )
        began, made = time.perf_counter(), 0
        self._engine.add(job)
        while self._engine.busy:
            made += sum(len(e.texts) for _, e in self._engine.step() if isinstance(e, Embedded))
        took = time.perf_counter() - began
        if made != len(texts):
            raise RuntimeError(f"{made} vectors of {len(texts)} texts")
        return took


class Theirs(driver.Side):
    """``BertModel`` in float32, the mean of its states, normalised."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self.torch, self.version, self.weights = torch, transformers.__version__, "float32"
        self.model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._batch = COUNT

    def warm(self, texts: Ids) -> None:
        taken = {}
        for batch in (BATCH, COUNT):
            self._batch = batch
            taken[batch] = min(self.embed(texts) for _ in range(2))
        self._batch = min(taken, key=lambda batch: taken[batch])

    def embed(self, texts: Ids) -> float:
        began = time.perf_counter()
        ordered = sorted(texts, key=len)
        with self.torch.inference_mode():
            for start in range(0, len(ordered), self._batch):
                self._vectors(ordered[start : start + self._batch])
        return time.perf_counter() - began

    def _vectors(self, texts: Ids) -> Any:
        longest = max(map(len, texts))
        ids = self.torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        seen = self.torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        states = self.model(input_ids=ids, attention_mask=seen).last_hidden_state
        mask = seen[:, :, None].to(states.dtype)
        pooled = (states * mask).sum(1) / mask.sum(1)
        return self.torch.nn.functional.normalize(pooled, dim=1).tolist()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings")
    parser.add_argument("side", choices=(OURS, PEER))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    side = Ours if given.side == OURS else Theirs
    return driver.serve(lambda: side(given.folder))


if __name__ == "__main__":
    sys.exit(main())
