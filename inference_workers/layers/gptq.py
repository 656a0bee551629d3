"""Few bits chosen by what a matrix does to its inputs (GPTQ, arXiv 2210.17323).

Columns are rounded one after another. What rounding one does wrong is made up for in the columns
that are still to come, as far as the inputs of both go together: that is what the inputs' second
moments say. Groups of 32 get their scale, and minimum, when their turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_workers.layers.packing import COLUMNS, Q4M, Q5, Bytes, Kind, pack

DAMPING = 0.01
"""Of the mean second moment, added to each: there is always something to divide by."""
BLOCK = 128
"""Columns whose corrections reach the columns behind them in one product."""
STEPS = {Q4M: (11, 12, 13, 14, 15, 16, 17, 18), Q5: (13, 14, 15, 16, 17, 18, 19)}
"""Into how many steps a group's range is cut at first: fewer leave codes unused, more clip."""
ROUNDS = 2
"""Further regressions of a group's best scale and minimum."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A packed matrix; ``error`` is the share of its outputs' energy that rounding added or took,
    over the inputs that it was fitted for."""

    kind: Kind
    data: Bytes
    error: float


class NotFinite(ValueError):
    """The inputs or the weights hold something that is not a finite number."""


class Inputs:
    """What a projection's inputs have in common, from ``(rows, columns)`` of them.

    Raises:
        NotFinite: some input is NaN or infinite.
    """

    def __init__(self, rows: Tensor) -> None:
        rows = rows.float()
        self._moments = rows.T @ rows
        if not torch.isfinite(self._moments).all():
            raise NotFinite("inputs")
        self._factor = _inverse_factor(self._moments)

    def fitted(self, values: Tensor, kind: Kind) -> Fitted:
        """``values`` ``(rows, columns)``, columns a multiple of 32, packed with 4 or 5 bits.

        Raises:
            NotFinite: some value is NaN or infinite.
        """
        values = values.float()
        if not torch.isfinite(values).all():
            raise NotFinite("values")
        with _alone():
            codes, scales, minimums = _rounded(values, self._factor, kind)
        made = codes * scales.repeat_interleave(COLUMNS, 1)
        if kind.minimum:
            made += minimums.repeat_interleave(COLUMNS, 1)
        data = pack(
            kind,
            (codes + kind.zero).to(torch.uint8).numpy(),
            scales.half().numpy(),
            minimums.half().numpy() if kind.minimum else None,
        )
        return Fitted(kind, data, self.error(values, made))

    def error(self, values: Tensor, made: Tensor) -> float:
        """The share of the outputs' energy by which ``made`` errs in the place of ``values``."""
        rest = values - made
        energy = float((values @ self._moments * values).sum())
        return float((rest @ self._moments * rest).sum()) / energy if energy > 0 else 0.0


def _inverse_factor(moments: Tensor) -> Tensor:
    """``U`` with ``U^T U`` the inverse of the damped moments, upper triangular, float32."""
    damped = moments.double()
    diagonal = damped.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1.0
    diagonal += DAMPING * float(diagonal.mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


@contextmanager
def _alone() -> Iterator[None]:
    """One thread: there is little to do in a column, and threads wait for each other after each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _rounded(values: Tensor, factor: Tensor, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """Codes less the kind's zero ``(rows, columns)``; scales and minimums ``(rows, groups)``."""
    left = values.T.contiguous().clone()  # columns lie together: each is read and corrected whole
    columns, rows = left.shape
    codes = torch.empty_like(left)
    scales = torch.empty(columns // COLUMNS, rows)
    minimums = torch.empty(columns // COLUMNS, rows)
    weight = factor.diagonal().square().reciprocal()
    lowest, highest = -kind.zero, (1 << kind.bits) - 1 - kind.zero
    for start in range(0, columns, BLOCK):
        stop = min(columns, start + BLOCK)
        errors = torch.empty(stop - start, rows)
        for column in range(start, stop):
            group = column // COLUMNS
            if column % COLUMNS == 0:
                ahead = slice(column, column + COLUMNS)
                scales[group], minimums[group] = _grid(left[ahead], weight[ahead], kind)
            scale, minimum = scales[group], minimums[group]
            code = ((left[column] - minimum) / _not_zero(scale)).round_().clamp_(lowest, highest)
            codes[column] = code
            error = (left[column] - code * scale - minimum) / factor[column, column]
            errors[column - start] = error
            left[column + 1 : stop].addr_(factor[column, column + 1 : stop], error, alpha=-1)
        left[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return codes.T.contiguous(), scales.T.contiguous(), minimums.T.contiguous()


def _grid(group: Tensor, weight: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """Scale and minimum ``(rows,)`` for a group ``(32, rows)`` whose errors weigh ``(32,)``.

    Ranges cut in several numbers of steps, each made better by regression on its codes; the one of
    least error stays. A group that was rounded before is found as it was.
    """
    search = _Search(group, weight[:, None], kind)
    if kind.minimum:
        low, high = group.amin(0), group.amax(0)
        top = (1 << kind.bits) - 1
        for steps in STEPS[kind]:
            scale = (high - low) / steps
            search.add(scale, low + max(0, steps - top) / 2 * scale)
    else:
        farthest = group.gather(0, group.abs().argmax(0, keepdim=True))[0]
        for steps in STEPS[kind]:
            search.add(-farthest / steps, torch.zeros_like(farthest))
    for _ in range(ROUNDS):
        search.refine()
    return search.scale, search.minimum


class _Search:
    """The best scale, minimum and codes of each row so far."""

    def __init__(self, group: Tensor, weight: Tensor, kind: Kind) -> None:
        self._group, self._weight, self._kind = group, weight, kind
        self._lowest, self._highest = -kind.zero, (1 << kind.bits) - 1 - kind.zero
        self.scale = self.minimum = torch.zeros_like(group[0])
        self._codes = torch.zeros_like(group)
        self._error = torch.full_like(group[0], float("inf"))

    def add(self, scale: Tensor, minimum: Tensor) -> None:
        """Try these, and what regression makes of their codes."""
        self._try(*self._regressed(self._try(scale, minimum)))

    def refine(self) -> None:
        self._try(*self._regressed(self._codes))

    def _try(self, scale: Tensor, minimum: Tensor) -> Tensor:
        """As float16 keeps them; answers the codes."""
        scale, minimum = scale.half().float(), minimum.half().float()
        codes = ((self._group - minimum) / _not_zero(scale)).round_()
        codes.clamp_(self._lowest, self._highest)
        error = ((self._group - codes * scale - minimum).square_() * self._weight).sum(0)
        better = error < self._error
        self._error = torch.where(better, error, self._error)
        self.scale = torch.where(better, scale, self.scale)
        self.minimum = torch.where(better, minimum, self.minimum)
        self._codes = torch.where(better, codes, self._codes)
        return codes

    def _regressed(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        group, weight = self._group, self._weight
        if not self._kind.minimum:
            scale = (codes * group * weight).sum(0) / _not_zero((codes.square() * weight).sum(0))
            return scale, torch.zeros_like(scale)
        total = weight.sum()
        mean, centre = (group * weight).sum(0) / total, (codes * weight).sum(0) / total
        spread = (codes - centre) * weight
        scale = (spread * group).sum(0) / _not_zero((spread * (codes - centre)).sum(0))
        return scale, mean - scale * centre


def _not_zero(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)
