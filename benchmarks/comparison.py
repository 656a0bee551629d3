"""The table's rows: each figure of ours and of every peer, in turn, under the same roof."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.process import ANSWERED_WITHIN, Process, SideError, SlowError
from benchmarks.roofline import Roof, Roofline
from benchmarks.turns import Sample, in_turn

BATCHES = (1, 4, 16, 32, 64)
PREFILL = 1000
OURS = "llmasos"
TEXTS = (
    "The capital of France is",
    "Once upon a time there was a small dragon who",
    "In computer science, a hash table is",
    "Dear customer, thank you for contacting us about",
)
WARM_TOKENS = 4
WARM_WITHIN = 60.0
"""Seconds in which a process has to warm up for a row."""
LEAST_WITHIN = 20.0
"""No process gets fewer: what it does for the first time takes longer."""
SHORT = 4.0
"""Seconds of a warm-up that is done again."""
SAMPLE_SECONDS = 10.0
"""A sample of decoding is made of the tokens that a side makes in so long by its warm-up, of
``LEAST_TOKENS`` a sequence at least and of the row's own number at most."""
LEAST_TOKENS = 8
FAR_BEHIND = 2.0
"""A peer's process that is so many times slower than its best one is not tried in later rows.
Except from one sequence, where bytes decide and half as many may be the faster ones, while from
several on operations do."""

Timed = Callable[[], float]
Rate = Callable[[Process, float], float]
"""Tokens per second of a process that is given so many seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens per second of every side; ``ran`` names the process that was measured for it, by its
    weights' type, and ``tokens`` how many a sequence each of its samples was made of. ``roof`` is
    the least that ours could take, ``work`` the tokens that a measurement of it makes and ``steps``
    how many steps make them."""

    what: str
    batch: int
    samples: dict[str, Sample]
    ran: dict[str, str]
    tokens: dict[str, int]
    roof: Roof
    work: int
    steps: int

    @property
    def best(self) -> str | None:
        """The fastest peer."""
        peers = [name for name in self.samples if name != OURS]
        return max(peers, key=lambda name: self.samples[name].median, default=None)

    @property
    def ratio(self) -> float | None:
        """Our median over the best peer's."""
        if self.best is None:
            return None
        return self.samples[OURS].median / self.samples[self.best].median

    @property
    def share(self) -> float:
        """How much of what the machine could do we reach, 0 to 1."""
        return self.samples[OURS].median / self.limit

    @property
    def limit(self) -> float:
        """Tokens per second on the roofline."""
        return self.work / (self.roof.seconds * self.steps)

    def as_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "batch": self.batch,
            "tokens_per_second": {name: s.as_dict() for name, s in self.samples.items()},
            "ran": {name: ran for name, ran in self.ran.items() if name in self.samples},
            "tokens": {name: made for name, made in self.tokens.items() if name in self.samples},
            "best_peer": self.best,
            "ratio": self.ratio,
            "roofline": {"tokens_per_second": self.limit, "by": self.roof.by, "share": self.share},
        }


class Table:
    """Ours and the peers' processes by name; ``say`` is told of a peer that fails on the way.
    ``left_out`` says why processes were ended before the last row."""

    def __init__(
        self,
        ours: Process,
        peers: Mapping[str, Sequence[Process]],
        roofline: Roofline,
        *,
        rounds: int,
        tokens: int,
        say: Callable[[str], None],
    ) -> None:
        self._ours, self._peers, self._roofline = ours, dict(peers), roofline
        self._rounds, self._tokens, self._say = rounds, tokens, say
        self.left_out: dict[str, str] = {}
        encoded = [ours.ask("encode", text=text) for text in TEXTS]
        shortest = min(map(len, encoded))
        # One length, so that no side has to pad.
        self._prompts = [ids[:shortest] for ids in encoded]
        self._long = ours.ask("encode", text=" ".join(TEXTS) * (PREFILL // 20))[:PREFILL]

    def rows(self, batches: Sequence[int] = BATCHES) -> Iterator[Row]:
        """Decoding at each batch size, then a long prompt."""
        for batch in batches:
            yield self._decode(batch)
        yield self._prefill()

    def prompts(self, count: int) -> list[list[int]]:
        return [self._prompts[i % len(self._prompts)] for i in range(count)]

    @property
    def long(self) -> list[int]:
        """A prompt of ``PREFILL`` tokens."""
        return list(self._long)

    def _decode(self, batch: int) -> Row:
        prompts, what = self.prompts(batch), f"decode, batch {batch}"

        def timed(side: Process, count: int, within: float = ANSWERED_WITHIN) -> float:
            took = side.ask("decode", prompts=prompts, tokens=count, within=within)
            return batch * count / float(took)

        def warmed(side: Process, within: float) -> float:
            return timed(side, WARM_TOKENS, within=within)

        sides = self._fastest(what, warmed, leave=batch > 1)
        made = {name: _affordable(rate / batch, self._tokens) for name, (_, rate) in sides.items()}
        rates = {name: partial(timed, side, made[name]) for name, (side, _) in sides.items()}
        ran = {name: side.name for name, (side, _) in sides.items()}
        ours = made[OURS]
        roof = self._roofline.decode(batch, len(prompts[0]), ours)
        return Row(what, batch, self._in_turn(rates), ran, made, roof, batch * ours, ours)

    def _prefill(self) -> Row:
        what = f"prefill, {PREFILL} tokens"

        def timed(side: Process, within: float = ANSWERED_WITHIN) -> float:
            return PREFILL / float(side.ask("prefill", prompt=self._long, within=within))

        sides = self._fastest(what, timed, leave=True)
        rates = {name: partial(timed, side) for name, (side, _) in sides.items()}
        ran = {name: side.name for name, (side, _) in sides.items()}
        made = dict.fromkeys(sides, PREFILL)
        roof = self._roofline.step([0], PREFILL)
        return Row(what, 1, self._in_turn(rates), ran, made, roof, PREFILL, 1)

    def _in_turn(self, rates: Mapping[str, Timed]) -> dict[str, Sample]:
        """All samples but those of a peer that failed on the way."""
        failed: set[str] = set()

        def or_nothing(name: str) -> float:
            try:
                return math.nan if name in failed else rates[name]()
            except SideError as error:
                if name == OURS:
                    raise
                failed.add(name)
                self._say(f"{name} is left out of this row: {error}")
                return math.nan

        samples = in_turn({name: partial(or_nothing, name) for name in rates}, self._rounds)
        return {n: s for n, s in samples.items() if n not in failed}

    def _fastest(self, what: str, rate: Rate, *, leave: bool) -> dict[str, tuple[Process, float]]:
        """Warm every side up, and take of a peer's processes the one that was fastest, with its
        tokens per second. Those that are far behind ``leave``."""
        chosen = {OURS: (self._ours, _twice(rate, self._ours, WARM_WITHIN))}
        for name, processes in self._peers.items():
            found = self._warmed(what, rate, processes)
            if found:
                chosen[name] = found[0]
                # Rows go on to more work at once: what is far behind now is further behind then.
                for process, speed in found if leave else ():
                    if speed <= found[0][1] / FAR_BEHIND:
                        self._end(process, what, f"far behind {found[0][0].name}")
            # The best one first, so that it limits the others in the next row.
            order = dict.fromkeys((*(process for process, _ in found), *processes))
            self._peers[name] = [p for p in order if p.name not in self.left_out]
        return chosen

    def _warmed(
        self, what: str, rate: Rate, processes: Sequence[Process]
    ) -> list[tuple[Process, float]]:
        """The processes that can do it, fastest first. Each gets the time in which it would still
        not be far behind the best one before it."""
        found: list[tuple[Process, float]] = []
        within = WARM_WITHIN
        for process in processes:
            began = time.monotonic()
            try:
                found.append((process, _twice(rate, process, within)))
            except SlowError:
                self._end(process, what, f"slower than {within:.0f} s for its warm-up")
            except SideError as error:
                self._say(f"{process.name} is left out of this row: {error}")
            else:
                taken = time.monotonic() - began
                within = min(within, max(FAR_BEHIND * taken, LEAST_WITHIN))
        return sorted(found, key=lambda pair: pair[1], reverse=True)

    def _end(self, process: Process, what: str, why: str) -> None:
        """Leave it out from now on, and give its memory back."""
        self.left_out[process.name] = f"{why} ({what})"
        self._say(f"{process.name} is left out: {self.left_out[process.name]}")
        process.close()


def _twice(rate: Rate, process: Process, within: float) -> float:
    """The better of two warm-ups, where one is short: it pays for what is done only once."""
    began = time.monotonic()
    first = rate(process, within)
    return first if time.monotonic() - began > SHORT else max(first, rate(process, within))


def _affordable(steps_per_second: float, most: int) -> int:
    """How many tokens a sequence a sample is made of."""
    return min(max(int(steps_per_second * SAMPLE_SECONDS), LEAST_TOKENS), most)
