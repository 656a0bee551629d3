"""The table: who is measured, what is compared with whom, and under which roof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from benchmarks.comparison import LEAST_TOKENS, LEAST_WITHIN, OURS, PREFILL, Row, Table
from benchmarks.process import Process, SideError, SlowError
from benchmarks.roofline import Roof, Roofline


class Fake:
    """A side that takes ``step`` seconds a step, and ``each`` more for every sequence of its batch;
    ``breaks`` after so many questions."""

    def __init__(self, name: str, step: float, breaks: int = 1000, each: float = 0) -> None:
        self.name, self.step, self.left, self.each = name, step, breaks, each
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.closed = False

    def ask(self, do: str, within: float = 300, **given: Any) -> Any:
        if do == "encode":
            return list(range(len(given["text"])))
        self.left -= 1
        if self.left < 0:
            raise SideError("it broke")
        self.asked.append((do, given))
        took = (self.step + self.each * len(given.get("prompts", ()))) * given.get("tokens", 1)
        if took > within:
            raise SlowError("slow")
        return took

    def close(self) -> None:
        self.closed = True


class Flat:
    """A roofline: a step takes a millisecond at least."""

    def decode(self, batch: int, prompt: int, tokens: int) -> Roof:
        return Roof(0.001, "memory")

    def step(self, starts: list[int], count: int = 1) -> Roof:
        return Roof(0.1, "compute")


def table(
    ours: Fake, peers: dict[str, list[Fake]], said: list[str] | None = None, tokens: int = 10
) -> Table:
    return Table(
        cast("Process", ours),
        cast("dict[str, list[Process]]", peers),
        cast("Roofline", Flat()),
        rounds=3,
        tokens=tokens,
        say=(said if said is not None else []).append,
    )


def rows(ours: Fake, peers: dict[str, list[Fake]], said: list[str] | None = None) -> list[Row]:
    return list(table(ours, peers, said).rows((1, 8)))


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
    said: list[str] = []
    found = rows(Fake(OURS, 0.05), {"t": [bfloat16, float32]}, said)
    assert found[0].ratio == pytest.approx(2)
    assert found[0].as_dict()["ran"] == {OURS: OURS, "t": "t float32"}
    assert len(bfloat16.asked) == 2 * 2  # warm-ups; far behind at batch 8: not tried again
    assert bfloat16.closed
    assert said == ["t bfloat16 is left out: far behind t float32 (decode, batch 8)"]
    assert len(float32.asked) == 3 * (2 + 3)
    assert not float32.closed


def test_a_weight_type_that_is_far_behind_alone_may_lead_in_a_batch() -> None:
    half, whole = Fake("t bfloat16", 0.01, each=0.02), Fake("t float32", 0.08, each=0.001)
    found = rows(Fake(OURS, 0.01), {"t": [half, whole]})
    assert [row.ran["t"] for row in found[:2]] == ["t bfloat16", "t float32"]


def test_a_weight_type_that_is_not_far_behind_is_tried_in_every_row() -> None:
    bfloat16, float32 = Fake("t bfloat16", 0.15), Fake("t float32", 0.1)
    rows(Fake(OURS, 0.05), {"t": [bfloat16, float32]})
    assert len(bfloat16.asked) == 2 * 3


def test_a_weight_type_that_would_hold_the_run_up_is_ended_in_its_first_warm_up() -> None:
    said: list[str] = []
    slow, fast = Fake("t bfloat16", LEAST_WITHIN), Fake("t float32", 0.1)
    measured = table(Fake(OURS, 0.05), {"t": [fast, slow]}, said)
    found = list(measured.rows((1, 8)))
    assert [row.ran["t"] for row in found] == ["t float32"] * 3
    assert len(slow.asked) == 1
    assert slow.closed
    why = "slower than 20 s for its warm-up (decode, batch 1)"
    assert measured.left_out == {"t bfloat16": why}
    assert said == [f"t bfloat16 is left out: {why}"]


@pytest.mark.parametrize(("step", "tokens"), [(0.01, 48), (0.5, 20), (9.0, LEAST_TOKENS)])
def test_a_sample_is_made_of_the_tokens_of_about_ten_seconds(step: float, tokens: int) -> None:
    ours, peer = Fake(OURS, 0.01), Fake("peer", step)
    row = next(table(ours, {"peer": [peer]}, tokens=48).rows([4]))
    assert row.tokens == {OURS: 48, "peer": tokens}
    assert row.as_dict()["tokens"] == row.tokens
    assert [given["tokens"] for _, given in peer.asked[-3:]] == [tokens] * 3
    assert row.samples["peer"].median == pytest.approx(4 / step)


def test_our_own_samples_follow_the_same_rule() -> None:
    row = next(table(Fake(OURS, 0.5), {}, tokens=48).rows([4]))
    assert row.tokens == {OURS: 20}
    assert row.limit == pytest.approx(4000)  # of the same tokens: 4 a millisecond


def test_a_peer_that_breaks_is_said_and_leaves_the_others_measured() -> None:
    said: list[str] = []
    peers = {"late": [Fake("late", 0.1, breaks=3)], "steady": [Fake("steady", 0.1)]}
    found = rows(Fake(OURS, 0.05), peers, said)
    assert [set(row.samples) for row in found] == [{OURS, "steady"}] * 3
    assert said == ["late is left out of this row: it broke"] * 3


def test_our_own_failure_ends_the_run() -> None:
    with pytest.raises(SideError, match="it broke"):
        rows(Fake(OURS, 0.05, breaks=3), {})


def test_the_share_of_the_roofline_is_what_the_machine_allows_over_what_was_taken() -> None:
    row = rows(Fake(OURS, 0.004), {})[1]
    assert row.limit == pytest.approx(8000)  # 8 tokens a millisecond
    assert row.share == pytest.approx(0.25)
    assert row.best is None
    assert row.as_dict()["ratio"] is None
