"""The table's rows: each figure of ours and of every peer, in turn, under the same roof."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.process import Process, SideError
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
FAR_BEHIND = 2.0
"""A peer's process that is so many times slower than its best one is not tried in later rows."""

Timed = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens per second of every side; ``ran`` names the process that was measured for it, by its
    weights' type. ``roof`` is the least that ours could take, ``work`` the tokens that a
    measurement makes and ``steps`` how many steps make them."""

    what: str
    batch: int
    samples: dict[str, Sample]
    ran: dict[str, str]
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
            "best_peer": self.best,
            "ratio": self.ratio,
            "roofline": {"tokens_per_second": self.limit, "by": self.roof.by, "share": self.share},
        }


class Table:
    """Ours and the peers' processes by name; ``say`` is told of a peer that fails on the way."""

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
        prompts, tokens = self.prompts(batch), self._tokens

        def timed(side: Process, count: int) -> float:
            return batch * count / float(side.ask("decode", prompts=prompts, tokens=count))

        sides = self._fastest(partial(timed, count=WARM_TOKENS))
        rates = {name: partial(timed, side, tokens) for name, side in sides.items()}
        roof = self._roofline.decode(batch, len(prompts[0]), tokens)
        what = f"decode, batch {batch}"
        ran = {name: side.name for name, side in sides.items()}
        return Row(what, batch, self._in_turn(rates), ran, roof, batch * tokens, tokens)

    def _prefill(self) -> Row:
        def timed(side: Process) -> float:
            return PREFILL / float(side.ask("prefill", prompt=self._long))

        sides = self._fastest(timed)
        rates = {name: partial(timed, side) for name, side in sides.items()}
        ran = {name: side.name for name, side in sides.items()}
        roof = self._roofline.step([0], PREFILL)
        return Row(f"prefill, {PREFILL} tokens", 1, self._in_turn(rates), ran, roof, PREFILL, 1)

    def _in_turn(self, rates: Mapping[str, Timed]) -> dict[str, Sample]:
        """All samples but those of a peer that failed on the way."""

        def or_nothing(name: str) -> float:
            try:
                return rates[name]()
            except SideError as error:
                if name == OURS:
                    raise
                self._say(f"{name} is left out of this row: {error}")
                return math.nan

        samples = in_turn({name: partial(or_nothing, name) for name in rates}, self._rounds)
        return {n: s for n, s in samples.items() if not any(map(math.isnan, s.values))}

    def _fastest(self, rate: Callable[[Process], float]) -> dict[str, Process]:
        """Warm every side up, and take of a peer's processes the one that was fastest."""
        rate(self._ours)
        chosen = {OURS: self._ours}
        for name, processes in self._peers.items():
            rates: list[tuple[float, Process]] = []
            for process in processes:
                try:
                    rates.append((rate(process), process))
                except SideError as error:
                    self._say(f"{process.name} is left out of this row: {error}")
            if rates:
                best, chosen[name] = max(rates, key=lambda pair: pair[0])
                # Rows go on to more work at once: what is far behind now is further behind then.
                self._peers[name] = [p for speed, p in rates if speed > best / FAR_BEHIND]
        return chosen
