"""The table: who is measured, what is compared with whom, and under which roof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from benchmarks.comparison import OURS, PREFILL, Row, Table
from benchmarks.process import Process, SideError
from benchmarks.roofline import Roof, Roofline


class Fake:
    """A side that takes ``step`` seconds a step, whatever the batch; ``breaks`` after so many
    questions."""

    def __init__(self, name: str, step: float, breaks: int = 1000) -> None:
        self.name, self.step, self.left = name, step, breaks
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def ask(self, do: str, **given: Any) -> Any:
        if do == "encode":
            return list(range(len(given["text"])))
        self.left -= 1
        if self.left < 0:
            raise SideError("it broke")
        self.asked.append((do, given))
        return self.step * given.get("tokens", 1)


class Flat:
    """A roofline: a step takes a millisecond at least."""

    def decode(self, batch: int, prompt: int, tokens: int) -> Roof:
        return Roof(0.001, "memory")

    def step(self, starts: list[int], count: int = 1) -> Roof:
        return Roof(0.1, "compute")


def rows(ours: Fake, peers: dict[str, list[Fake]], said: list[str] | None = None) -> list[Row]:
    table = Table(
        cast("Process", ours),
        cast("dict[str, list[Process]]", peers),
        cast("Roofline", Flat()),
        rounds=3,
        tokens=10,
        say=(said if said is not None else []).append,
    )
    return list(table.rows((1, 8)))


def test_a_ratio_is_our_median_over_that_of_the_fastest_peer() -> None:
    ours, slow, fast = Fake(OURS, 0.01), Fake("slow", 0.05), Fake("fast", 0.02)
    found = rows(ours, {"slow": [slow], "fast": [fast]})
    assert [row.what for row in found] == [
        "decode, batch 1",
        "decode, batch 8",
        "prefill, 1000 tokens",
    ]
    for row in found:
        assert row.best == "fast"
        assert row.ratio == pytest.approx(2)
    assert found[1].samples[OURS].median == pytest.approx(800)  # 8 tokens every 10 ms


def test_every_side_gets_the_same_prompts_of_one_length() -> None:
    ours, peer = Fake(OURS, 0.01), Fake("peer", 0.01)
    rows(ours, {"peer": [peer]})
    assert ours.asked[-1] == peer.asked[-1] or ours.asked[-2:] == peer.asked[-2:]
    decodes = [given for do, given in ours.asked if do == "decode"]
    assert {len(ids) for given in decodes for ids in given["prompts"]} == {24}
    (prefill,) = {len(given["prompt"]) for do, given in ours.asked if do == "prefill"}
    assert prefill == PREFILL


def test_of_a_peers_weight_types_the_faster_one_is_measured() -> None:
    bfloat16, float32 = Fake("t bfloat16", 0.4), Fake("t float32", 0.1)
    found = rows(Fake(OURS, 0.05), {"t": [bfloat16, float32]})
    assert found[0].ratio == pytest.approx(2)
    assert len(bfloat16.asked) == 1  # a warm-up, and far behind: not tried again
    assert len(float32.asked) == 3 * 4
    assert found[0].as_dict()["ran"] == {OURS: OURS, "t": "t float32"}


def test_a_weight_type_that_is_not_far_behind_is_tried_in_every_row() -> None:
    bfloat16, float32 = Fake("t bfloat16", 0.15), Fake("t float32", 0.1)
    rows(Fake(OURS, 0.05), {"t": [bfloat16, float32]})
    assert len(bfloat16.asked) == 3


def test_a_peer_that_breaks_is_said_and_leaves_the_others_measured() -> None:
    said: list[str] = []
    peers = {"late": [Fake("late", 0.1, breaks=2)], "steady": [Fake("steady", 0.1)]}
    found = rows(Fake(OURS, 0.05), peers, said)
    assert [set(row.samples) for row in found] == [{OURS, "steady"}] * 3
    assert said[0] == "late is left out of this row: it broke"


def test_our_own_failure_ends_the_run() -> None:
    with pytest.raises(SideError, match="it broke"):
        rows(Fake(OURS, 0.05, breaks=2), {})


def test_the_share_of_the_roofline_is_what_the_machine_allows_over_what_was_taken() -> None:
    row = rows(Fake(OURS, 0.004), {})[1]
    assert row.limit == pytest.approx(8000)  # 8 tokens a millisecond
    assert row.share == pytest.approx(0.25)
    assert row.best is None
    assert row.as_dict()["ratio"] is None
