"""The engine against its peers, under the machine's roof: the table, and what tables don't show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import peers, weights
from benchmarks.comparison import OURS, PREFILL, Row, Table
from benchmarks.machine import computes_bfloat16, describe
from benchmarks.process import Process
from benchmarks.roofline import Roofline
from benchmarks.turns import Sample, percentile

INSTRUCTION = 500
STREAMS = 31
GUIDED = 16


def measure(
    folder: Path,
    made: Path,
    peers_in: Path | None,
    batches: Sequence[int],
    *,
    quick: bool,
    rounds: int | None = None,
) -> dict[str, Any]:
    """All of the engine's results. ``made`` keeps the weights in the peers' forms; ``rounds`` are
    5, or 2 where it is ``quick``.

    Raises:
        SideError: our own side can't run, or ``peers_in`` has no peer.
    """
    usual, tokens = (2, 16) if quick else (5, 48)
    files = weights.prepared(folder, made)
    bfloat16 = computes_bfloat16(describe())
    listed = peers.candidates(peers_in, files, Path(sys.executable), bfloat16=bfloat16)
    command = [sys.executable, "-m", "benchmarks.served", folder]
    with Process(OURS, command) as ours, peers.started(listed, max(batches)) as found:
        for name, why in found.left_out.items():
            print(f"{name} is left out: {why}", flush=True)
        peaks, described = ours.ask("peaks"), ours.ask("describe")
        roofline = Roofline(folder, peaks, described)
        print("\n".join(_peak_lines(peaks)), flush=True)
        table = Table(
            ours, found.running, roofline, rounds=rounds or usual, tokens=tokens, say=_say
        )
        names = [OURS, *found.running]
        print("\n" + _heading(names), flush=True)
        rows = []
        for row in table.rows(batches):
            rows.append(row)
            print(_line(row, names), flush=True)
        arrival = _arrival(ours, table, 1 if quick else 3, 48)
        shared = _shared(ours, 3 if quick else 10)
        guides = _guides(ours, table, 1 if quick else 5, tokens)
    results = {"rows": [row.as_dict() for row in rows], "peaks": peaks, "engine": described}
    results["sides"] = {OURS: ours.about, **found.about}
    results["left_out"] = found.left_out | table.left_out
    results |= {"arrival": arrival, "shared": shared, "guides": guides}
    return results


def _arrival(ours: Process, table: Table, rounds: int, tokens: int) -> dict[str, Any]:
    """A long prompt comes while others decode; gaps of all rounds together."""
    usual: list[float] = []
    gaps: list[float] = []
    firsts: list[float] = []
    for _ in range(rounds):
        answer = ours.ask("arrival", prompts=table.prompts(STREAMS), long=table.long, tokens=tokens)
        usual += answer["usual"]
        gaps += answer["gaps"]
        firsts.append(answer["first"])
    found = {
        "streams": STREAMS,
        "prompt": PREFILL,
        "tokens": tokens,
        "usual_p50_ms": 1000 * percentile(usual, 0.5),
        "gap_p50_ms": 1000 * percentile(gaps, 0.5),
        "gap_p99_ms": 1000 * percentile(gaps, 0.99),
        "first_token_ms": Sample(tuple(1000 * first for first in firsts)).as_dict(),
    }
    print(
        f"\n{PREFILL} tokens arrive while {STREAMS} streams decode: gap p50 "
        f"{found['gap_p50_ms']:.0f} ms, p99 {found['gap_p99_ms']:.0f} ms (p50 before it came "
        f"{found['usual_p50_ms']:.0f} ms); its own first token after "
        f"{1000 * percentile(firsts, 0.5):.0f} ms",
        flush=True,
    )
    return found


def _shared(ours: Process, requests: int) -> dict[str, Any]:
    answer = ours.ask("shared", instruction=INSTRUCTION, requests=requests)
    cold, warm = (
        Sample(tuple(1000 * seconds for seconds in answer[name])) for name in ("cold", "warm")
    )
    rate = answer["hits"] / answer["lookups"]
    print(
        f"an instruction of {INSTRUCTION} tokens: first token after {cold.median:.0f} ms cold, "
        f"{warm.median:.0f} ms where another shares it; hit rate {rate:.0%}",
        flush=True,
    )
    return {
        "instruction": INSTRUCTION,
        "cold_ms": cold.as_dict(),
        "warm_ms": warm.as_dict(),
        "hit_rate": rate,
    }


def _guides(ours: Process, table: Table, rounds: int, tokens: int) -> dict[str, Any]:
    """What guided requests cost those beside them."""
    answer = ours.ask("guided", prompts=table.prompts(GUIDED), tokens=tokens, rounds=rounds)
    found: dict[str, Any] = {"streams": GUIDED}
    for name, gaps in answer.items():
        found |= {f"{name}_p{p}_ms": 1000 * percentile(gaps, p / 100) for p in (50, 99)}
    print(
        f"{GUIDED} streams beside as many: gap p50 {found['plain_p50_ms']:.1f} ms, p99 "
        f"{found['plain_p99_ms']:.1f} ms; where a JSON schema guides the others "
        f"{found['guided_p50_ms']:.1f} and {found['guided_p99_ms']:.1f} ms",
        flush=True,
    )
    return found


def _peak_lines(peaks: dict[str, float]) -> list[str]:
    operations = {name: rate for name, rate in peaks.items() if name != "bandwidth"}
    return [
        f"memory is read at {peaks['bandwidth'] / 1e9:.1f} GB/s; products reach "
        + ", ".join(f"{rate / 1e9:.3g} GOP/s in {name}" for name, rate in operations.items())
    ]


def _heading(names: Sequence[str]) -> str:
    sides = "".join(f"{name:>16}" for name in names)
    return f"{'tokens/s':<22}{sides}{'ratio':>8}{'roof':>10}{'share':>8}  bound by"


def _line(row: Row, names: Sequence[str]) -> str:
    rates = "".join(
        f"{row.samples[name].median:>16.1f}" if name in row.samples else f"{'-':>16}"
        for name in names
    )
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    return f"{row.what:<22}{rates}{ratio:>8}{row.limit:>10.0f}{row.share:>8.0%}  {row.roof.by}"


def _say(text: str) -> None:
    print(text, flush=True)
