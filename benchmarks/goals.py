"""What is to be reached, held against what a run found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STORED = "as stored"
BEST_PEER = {1: 1.2, 4: 1.5, 16: 2.0, 32: 2.5, 64: 2.5}
"""Decoding, by batch size: our tokens per second over the best peer's."""
STATIC = 1.5
"""Decoding at every batch size, over ``transformers.generate``."""
PREFILL = 2.0
"""A long prompt, over llama.cpp."""
GAP = 3.0
"""The slowest hundredth of the gaps while a long prompt arrives, over their median."""
SHARED = 5.0
"""A first token without the shared instruction in the cache, over one with it."""
READY_SECONDS = 5.0
GUIDES = 1.05
"""The usual gap of streams beside guided ones, over that beside plain ones."""
QUALITY = {"int8": 0.5, "int4": 3.0}
"""By how many per cent a format's perplexity may be above that of bfloat16."""
SAME_FILE = 0.5
"""By how many per cent it may be above what the peer makes of the file that all come from."""
MEMORY = 1.3
"""A worker's peak, over its weights and its cache."""
EMBEDDING = 1.5
"""Texts embedded a second, over transformers' own module."""
THROUGH = 0.85
"""Tokens per second through the portal, over the engine alone."""
ADDED_MS = 30.0
"""What the portal adds to the first token."""
REQUEST_MS = 10.0
"""A request with a key, from its arrival until its job is queued."""
PAGE_MS = 300.0
"""A usage page with a million jobs."""


@dataclass(frozen=True, slots=True)
class Goal:
    """``found`` against ``wanted``, as numbers with a unit; ``most``: smaller is better."""

    what: str
    wanted: float
    found: float
    unit: str = "×"
    most: bool = False

    @property
    def reached(self) -> bool:
        return self.found <= self.wanted if self.most else self.found >= self.wanted

    def lines(self) -> str:
        """One line: what, the goal, the figure, and whether it is reached."""
        sign, verdict = ("≤" if self.most else "≥"), ("reached" if self.reached else "not reached")
        wanted, found = (f"{number:.3g} {self.unit}" for number in (self.wanted, self.found))
        return f"{self.what:<58}{sign + ' ' + wanted:>12}{found:>12}  {verdict}"


def held_against(results: Mapping[str, Any]) -> list[Goal]:
    """Every goal for which the results have a figure."""
    found = [goal for row in results.get("rows", ()) for goal in _row(row)]
    if arrival := results.get("arrival"):
        what = f"gap p99 while a prompt of {arrival['prompt']} tokens arrives, over the median"
        found.append(Goal(what, GAP, arrival["gap_p99_ms"] / arrival["gap_p50_ms"], most=True))
    if shared := results.get("shared"):
        what = f"first token with a shared instruction of {shared['instruction']} tokens"
        found.append(Goal(what, SHARED, shared["cold_ms"]["median"] / shared["warm_ms"]["median"]))
    if guides := results.get("guides"):
        what = f"gap of {guides['streams']} streams beside guided ones, over beside plain ones"
        found.append(
            Goal(what, GUIDES, guides["guided_p50_ms"] / guides["plain_p50_ms"], most=True)
        )
    found += _quality(results.get("quality", {}).get("rows", ()))
    if worker := results.get("worker"):
        seconds = worker["ready_seconds"]["median"]
        found.append(Goal("a worker is ready", READY_SECONDS, seconds, "s", most=True))
        what = "a worker's peak memory, over weights and cache"
        found.append(Goal(what, MEMORY, worker["share"], most=True))
    for row in results.get("embeddings", {}).get("rows", ()):
        found.append(Goal(f"embeddings, {row['what']}, over transformers", EMBEDDING, row["ratio"]))
    if portal := results.get("portal"):
        for name, key in (("WebSocket", "websocket"), ("SSE", "sse")):
            what = f"{portal['streams']} streams over {name}, over the engine alone"
            found.append(Goal(what, THROUGH, portal[key] / portal["alone"]))
        added = portal["first_portal_ms"] - portal["first_alone_ms"]
        what = "the portal's part of the first token, p50"
        found.append(Goal(what, ADDED_MS, added, "ms", most=True))
    if request := results.get("request"):
        what = "a request with a key until its job is queued, p50"
        found.append(Goal(what, REQUEST_MS, request["plain"]["p50_ms"], "ms", most=True))
    if usage := results.get("usage"):
        slowest = max(page["p50_ms"] for page in usage["pages"].values())
        what = f"the slowest usage page with {usage['jobs']:,} jobs, p50"
        found.append(Goal(what, PAGE_MS, slowest, "ms", most=True))
    return found


def _quality(rows: Sequence[Mapping[str, Any]]) -> Iterator[Goal]:
    peer = next((row for row in rows if row.get("peer")), None)
    for row in rows:
        for language, value in row["perplexity"].items():
            if wanted := QUALITY.get(row["format"]):
                what = f"perplexity of {row['format']} over bfloat16's, {language}"
                yield Goal(what, wanted, 100 * row["change"][language], "%", most=True)
            if peer and row["format"] in (STORED, *QUALITY):
                what = f"perplexity {row['format']} over {peer['format']}'s, {language}"
                above = 100 * (value / peer["perplexity"][language] - 1)
                yield Goal(what, SAME_FILE, above, "%", most=True)


def _row(row: Mapping[str, Any]) -> list[Goal]:
    rates = {name: sample["median"] for name, sample in row["tokens_per_second"].items()}
    ours = rates["llmasos"]
    if not row["what"].startswith("decode"):
        what = f"{row['what']}, over llama.cpp"
        return [Goal(what, PREFILL, ours / rates["llamacpp"])] if "llamacpp" in rates else []
    found = []
    if "transformers" in rates:
        what = f"{row['what']}, over transformers.generate"
        found.append(Goal(what, STATIC, ours / rates["transformers"]))
    # Against the best of several; with transformers alone that goal says no more than the first.
    if row["best_peer"] and len(rates) > 2 and row["batch"] in BEST_PEER:
        what = f"{row['what']}, over the best peer ({row['best_peer']})"
        found.append(Goal(what, BEST_PEER[row["batch"]], row["ratio"]))
    return found
