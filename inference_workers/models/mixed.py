"""4 bits where they are enough: which matrices get more, by how far the whole model strays.

Every matrix is fitted with 4 and with 5 bits, to inputs as the matrices before it make them. Then
bits are given where they take the most error away for what they weigh, until the model's
predictions on texts that it wrote itself stray from the original's by no more than ``LOSS``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from inference_workers.errors import ModelError
from inference_workers.layers.gptq import Inputs, NotFinite
from inference_workers.layers.linear import Linear, Matrix, Packed
from inference_workers.layers.packing import Q4M, Q5, Q8, Floats, Kind
from inference_workers.models import calibration
from inference_workers.models.base import CausalModel
from inference_workers.models.manifest import Manifest
from inference_workers.models.report import Report
from inference_workers.native import kernels, set_threads

LADDER = (Q4M, Q5, Q8)
LOSS = 0.02
"""Nats a token by which a version may stray (see ``calibration.Yardstick``): on text that the model
did not write itself it loses a little more, and 3 % is what it may lose."""
TRIALS = 6
"""Assignments that are tried; the last ones are near enough to each other."""
FINER = 1 / 64
"""Error of 8 bits for that of 5: each bit halves a step, and the error goes with its square."""

Read = Callable[[str], Floats]


@dataclass(slots=True)
class Candidate:
    """A matrix that may get few bits: the share of its outputs' energy that each kind errs by."""

    number: int
    name: str
    rows: int
    columns: int
    errors: dict[Kind, float] = field(default_factory=dict)

    def bits(self, kind: Kind) -> int:
        """Of the whole matrix, scales and minimums included."""
        return 8 * kind.bytes(self.rows, self.columns)


def choose(candidates: Sequence[Candidate], price: float) -> dict[str, Kind]:
    """The kind of each for which error and bits together cost least, at ``price`` a bit."""
    return {
        item.name: min(LADDER, key=lambda kind: item.errors[kind] + price * item.bits(kind))
        for item in candidates
    }


def prices(candidates: Sequence[Candidate]) -> list[float]:
    """Those at which some matrix changes its kind, the dearest bits first, 0 last: from 4 bits for
    all to what is exact."""
    found = {0.0}
    for item in candidates:
        for low in LADDER:
            for high in LADDER:
                more = item.bits(high) - item.bits(low)
                if more > 0:
                    gain = (item.errors[low] - item.errors[high]) / more
                    found |= {max(0.0, gain * 1.001), max(0.0, gain * 0.999)}
    return sorted(found, reverse=True)


def settle(
    candidates: Sequence[Candidate], strays: Callable[[Mapping[str, Kind]], float]
) -> tuple[dict[str, Kind], float]:
    """The lightest choice found by halving that strays by no more than ``LOSS``, and by how much;
    the heaviest there is if none does."""
    known = prices(candidates)
    low, high = 0, len(known) - 1
    chosen = choose(candidates, known[low])
    found = strays(chosen)
    if found <= LOSS or high == 0:
        return chosen, found
    chosen, found = choose(candidates, 0.0), float("nan")
    for _ in range(TRIALS):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        tried = choose(candidates, known[middle])
        loss = strays(tried)
        if loss <= LOSS:
            high, chosen, found = middle, tried, loss
        else:
            low = middle
    return chosen, strays(chosen) if found != found else found


class Fitting:
    """Fits a model's matrices to their inputs and keeps what it packed in files of ``folder``: in
    memory are one projection's inputs and one matrix at a time.

    ``names`` are the matrices' by where their bytes lie in the model that reads; ``source`` reads
    the weights ``(rows, columns)`` that are to be packed.
    """

    def __init__(
        self, source: Read, names: Mapping[int, str], folder: Path, told: Callable[[int], None]
    ) -> None:
        self._source, self._names, self._folder, self._told = source, names, folder, told
        self.candidates: list[Candidate] = []

    def seen(self, linear: Linear, inputs: Tensor) -> Linear:
        """The projection with its matrices in 4 bits; for ``calibration.watch``."""
        names = [self._names.get(matrix.data.data_ptr(), "") for matrix in linear.packed]
        if not any(names):
            return linear
        try:
            moments = Inputs(inputs)
        except NotFinite as error:
            raise ModelError(
                f"What goes into {next(filter(None, names))!r} is not finite numbers: the model's "
                "weights are damaged. Prepare it again, from a good copy.",
                code="corrupt",
            ) from error
        pairs = zip(names, linear.packed, strict=True)
        return linear.with_weights([self._fit(n, moments) if n else kept for n, kept in pairs])

    def _fit(self, name: str, moments: Inputs) -> Packed:
        values = torch.from_numpy(self._source(name))
        item = Candidate(len(self.candidates), name, *values.shape)
        for kind in (Q4M, Q5):
            fitted = moments.fitted(values, kind)
            item.errors[kind] = fitted.error
            fitted.data.tofile(self._path(item, kind))
        item.errors[Q8] = item.errors[Q5] * FINER
        self.candidates.append(item)
        self._told(sum(item.rows * item.columns for item in self.candidates))
        return self._packed(item, Q4M)

    def chosen(self, kinds: Mapping[str, Kind]) -> dict[str, Packed]:
        """The matrices that got few bits, mapped."""
        few = [item for item in self.candidates if kinds[item.name] is not Q8]
        return {item.name: self._packed(item, kinds[item.name]) for item in few}

    def _path(self, item: Candidate, kind: Kind) -> Path:
        return self._folder / f"{item.number}.{kind.name}"

    def _packed(self, item: Candidate, kind: Kind) -> Packed:
        data = np.memmap(self._path(item, kind), np.uint8, mode="c")
        return Packed(kind, torch.from_numpy(data), item.rows, item.columns)


@dataclass(frozen=True, slots=True)
class Mixed:
    """``matrices`` with few bits by name, and by how much the model with them ``strays``."""

    matrices: dict[str, Packed]
    strays: float


def mixed(
    build: Callable[[Mapping[str, Matrix]], CausalModel],
    reference: Mapping[str, Matrix],
    few: Collection[str],
    source: Read,
    words: tuple[Tokenizer, Manifest],
    folder: Path,
    progress: Report,
) -> Mixed:
    """Choose among the matrices ``few`` of a model which can do with 4 or 5 bits, and pack those.

    ``reference`` are all of the model's tensors, its matrices with 8 bits or as few as they have;
    ``source`` reads a matrix as it was before; ``folder`` takes files that are worth keeping as
    long as the result.

    Raises:
        ModelError: the kernels are missing that the model is read with, or something in it is not
            a finite number.
    """
    if kernels() is None:
        raise ModelError(
            "Choosing bits for int4 means running the model with packed weights, and the kernels "
            "for that are missing: they need an x86 processor with AVX2, and a C compiler while "
            "make build runs. Choose int8, or make the version where they are.",
            code="no_kernels",
        )
    set_threads(torch.get_num_threads())
    model = build(reference)
    writing = progress.part(0.0, 0.4)
    texts = calibration.write_texts(model, *words, lambda x: writing(x, "Writing texts to fit to"))
    progress(0.4, "Reading the texts to fit to")
    yardstick = calibration.Yardstick(model, texts)
    at = {m.data.data_ptr(): n for n in few if isinstance(m := reference[n], Packed)}
    total, part = sum(math.prod(reference[n].shape) for n in few), progress.part(0.42, 0.8)
    fitting = Fitting(source, at, folder, lambda done: part(done / total, "Fitting the weights"))
    calibration.watch(build(reference), texts.fitted, fitting.seen)
    trials = itertools.count()

    def strays(kinds: Mapping[str, Kind]) -> float:
        done = min(1.0, next(trials) / (TRIALS + 2))
        progress(0.8 + 0.2 * done, "Choosing where 4 bits are enough")
        return yardstick.strays(build({**reference, **fitting.chosen(kinds)}))

    kinds, found = settle(fitting.candidates, strays)
    return Mixed(fitting.chosen(kinds), found)
