"""``python -m benchmarks.report [RESULTS.json]``: ``docs/performance.md`` and its chart.

Without a file it takes the newest in ``benchmarks/results``. Everything on that page comes from one
results file; nothing there is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals
from benchmarks.chart import Bar, draw

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = Path(__file__).parent / "results"
OURS = "llmasos"

_HOW = """\
## How to measure it again

```
make run                # once: prepares the default model
make bench              # about 50 minutes on two cores; QUICK=1 takes a few, for trying
make bench PEERS=DIR    # DIR/llamacpp, DIR/vllm, DIR/transformers, DIR/transformers-cb: a virtual
                        # environment each, with the peer installed; about 15 minutes more

python -m benchmarks --peers DIR --only engine --batches 16 --rounds 1    # one row, once
```

Use a machine that does nothing else. All sides get the same prompts as token ids, decode greedily
and end early for nothing; they run in turn, each in a process of its own that is stopped while it
is another's turn, every second round in the opposite order. What is quoted are medians and ratios:
tokens per second alone say more about the machine.

A sample of decoding is made of 48 tokens a sequence, or of as many as its side makes in about ten
seconds by its warm-up, but of no fewer than 8; the rule is the same for all, and rates are those of
the decoding steps alone. A peer may take its weights in several types: each is tried, and the row
shows the fastest. What is far behind another type of the same peer in a batch, or needs minutes to
warm up, is ended, and said so here.

Results with every single figure are kept in `benchmarks/results/`; this page is made of one of them
by `python -m benchmarks.report`.
"""


def page(results: Mapping[str, Any]) -> str:
    """``docs/performance.md`` of one run."""
    parts = ["# How fast it is\n", _machine(results)]
    if results.get("rows"):
        parts += ["![Ratios to the best peer, drawn as bars](performance.svg)\n", _rows(results)]
        parts.append(_others(results))
    if "quality" in results:
        parts.append(_quality(results["quality"]))
    if "worker" in results:
        parts.append(_worker(results["worker"]))
    if "embeddings" in results:
        parts.append(_embeddings(results["embeddings"]))
    if "portal" in results:
        parts.append(_portal(results["portal"]))
    if "request" in results:
        parts.append(_request(results["request"]))
    if "usage" in results:
        parts.append(_usage(results["usage"]))
    parts += [_goals(results), _HOW]
    return "\n".join(part for part in parts if part)


def chart(results: Mapping[str, Any]) -> str:
    """``docs/performance.svg``: our rates over the best peer's."""
    wanted = goals.BEST_PEER if _several(results) else dict.fromkeys(goals.BEST_PEER, goals.STATIC)
    bars = [
        Bar(
            row["what"],
            row["ratio"],
            row["best_peer"],
            wanted.get(row["batch"]) if row["what"].startswith("decode") else None,
        )
        for row in results["rows"]
        if row["ratio"] is not None
    ]
    return draw(bars, "Tokens per second, as a multiple of the best peer's")


def _several(results: Mapping[str, Any]) -> bool:
    return any(len(row["tokens_per_second"]) > 2 for row in results["rows"])


def _machine(results: Mapping[str, Any]) -> str:
    machine, model = results["machine"], results["model"]
    flags = ", ".join(machine["flags"]) or "none that matter"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    quick = " A quick run: a trial, not a measurement." if results["quick"] else ""
    return (
        f"Measured on {results['at'][:10]} on {machine['cores']} cores of {machine['cpu']} "
        f"({flags}), {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, Python "
        f"{machine['python']}, {versions}, with `{model['id']}` "
        f"({model['parameters'] / 1e6:.0f} M parameters, mostly {model['format']}, "
        f"{model['bytes'] / 1e6:.0f} MB). Load when it began: {machine['load']}.{quick}\n"
    )


def _rows(results: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(n for row in results["rows"] for n in row["tokens_per_second"]))
    heading = ["tokens per second", *names, "ratio to the best peer", "roofline", "share of it"]
    lines = []
    for row in results["rows"]:
        rates, roof = row["tokens_per_second"], row["roofline"]
        cells = [_rate(rates[name]) if name in rates else "" for name in names]
        best = row["ran"].get(row["best_peer"])  # with the type of its weights
        ratio = f"**{row['ratio']:.2f}** ({best})" if row["ratio"] else ""
        limit = f"{roof['tokens_per_second']:.0f} ({roof['by']})"
        lines.append([row["what"], *cells, ratio, limit, f"{roof['share']:.0%}"])
    peaks = results["peaks"]
    products = ", ".join(
        f"{rate / 1e9:.3g} in {name}" for name, rate in peaks.items() if name != "bandwidth"
    )
    sides = "; ".join(
        f"{name}: {about['version']}, {about['weights']}"
        for name, about in results["sides"].items()
    )
    left_out = "".join(f" {name} is left out: {why}." for name, why in results["left_out"].items())
    return (
        f"Medians, with the lowest and the highest of {_rounds(results)} rounds. {sides}."
        f"{left_out}\n\n{_table(heading, lines)}{_shorter(results)}\n"
        "The roofline is the least time that the machine could take: bytes that must be read over "
        "the bandwidth, or operations over the peak, both measured in the same run: "
        f"{peaks['bandwidth'] / 1e9:.1f} GB/s, and products in GOP/s: {products}.\n"
    )


def _shorter(results: Mapping[str, Any]) -> str:
    """Whose samples were made of fewer tokens than others of their row."""
    found = []
    for row in results["rows"]:
        made = row.get("tokens") or {}
        most = max(made.values(), default=0)
        fewer = [f"{name} {count}" for name, count in made.items() if count < most]
        if fewer:
            found.append(f"{row['what']}: {', '.join(fewer)} of {most}")
    return f"\nSamples of fewer tokens a sequence: {'; '.join(found)}.\n" if found else ""


def _rounds(results: Mapping[str, Any]) -> int:
    return len(results["rows"][0]["tokens_per_second"][OURS]["values"])


def _rate(sample: Mapping[str, Any]) -> str:
    return f"{sample['median']:.1f} ({sample['low']:.1f}–{sample['high']:.1f})"


def _others(results: Mapping[str, Any]) -> str:
    found = []
    if arrival := results.get("arrival"):
        found.append(
            f"- **A prompt of {arrival['prompt']} tokens arrives while {arrival['streams']} "
            f"streams decode.** Between two tokens of a stream, over {arrival['tokens']} tokens "
            f"around its arrival: p50 {arrival['gap_p50_ms']:.0f} ms, p99 "
            f"{arrival['gap_p99_ms']:.0f} ms; before it came, p50 {arrival['usual_p50_ms']:.0f} "
            f"ms. Its own first token came after {arrival['first_token_ms']['median']:.0f} ms."
        )
    if shared := results.get("shared"):
        cold, warm = shared["cold_ms"]["median"], shared["warm_ms"]["median"]
        found.append(
            f"- **Requests that share an instruction of {shared['instruction']} tokens.** First "
            f"token after {cold:.0f} ms for the first of them, {warm:.0f} ms for the next: "
            f"{cold / warm:.1f} × sooner. Hit rate {shared['hit_rate']:.0%}."
        )
    if guides := results.get("guides"):
        found.append(
            f"- **{guides['streams']} streams beside as many that a JSON schema guides.** Between "
            f"two of their tokens: p50 {guides['guided_p50_ms']:.1f} ms, p99 "
            f"{guides['guided_p99_ms']:.1f} ms; beside plain ones, p50 "
            f"{guides['plain_p50_ms']:.1f} ms, p99 {guides['plain_p99_ms']:.1f} ms."
        )
    return "\n".join(found) + "\n" if found else ""


def _quality(quality: Mapping[str, Any]) -> str:
    lines = []
    for row in quality["rows"]:
        speeds = row.get("speed") or {}
        size = f"{row['bytes'] / 1e6:.0f} MB" if "bytes" in row else ""
        cells = [f"{speeds[batch]:.0f}" if batch in speeds else "" for batch in ("1", "16")]
        for language, value in row["perplexity"].items():
            change = "" if row["format"] == quality["reference"] else row["change"][language]
            cells.append(f"{value:.2f}" + (f" ({100 * change:+.2f} %)" if change != "" else ""))
        lines.append([row["format"], size, *cells])
    tokens = quality["rows"][0]["tokens"]
    heading = ["weights", "memory", "tokens/s, batch 1", "batch 16"]
    heading += [f"perplexity, `{name}` ({count:,} tokens)" for name, count in tokens.items()]
    return (
        "## Quality\n\n"
        "Every format reads two texts of the project's own, in windows of 512 tokens. The "
        "reference is computed in bfloat16: each product is added up in float32 and rounded once, "
        "as a processor with that arithmetic does. `docs/models.md` says more.\n\n"
        f"{_table(heading, lines)}"
    )


def _worker(worker: Mapping[str, Any]) -> str:
    names = ("peak", "mapped", "weights", "cache", "idle", "floor")
    sizes = {name: f"{worker[name] / 1e6:.0f} MB" for name in names if name in worker}
    floor = ""
    if "floor" in sizes:
        least = (worker["floor"] + worker["weights"] + worker["cache"]) / 1e6
        floor = (
            f" A process that has only imported torch, redis and NumPy takes {sizes['floor']}, "
            f"with weights and cache {least:.0f} MB: a worker gives back what only its start used."
        )
    return (
        "## Start and memory\n\n"
        f"A worker is ready {worker['ready_seconds']['median']:.1f} s after its process began. "
        f"With its cache of {sizes['cache']} filled it took {sizes['peak']} at most, "
        f"{worker['share']:.2f} × the {sizes['weights']} of weights and the cache together; "
        f"{sizes['mapped']} of that are pages of files, which workers share. Before its first "
        f"request it took {sizes['idle']}.{floor}\n"
    )


def _embeddings(found: Mapping[str, Any]) -> str:
    names = list(found["rows"][0]["texts_per_second"])
    lines = [
        [
            f"{row['what']} ({row['tokens']:.0f} tokens on average)",
            *(_rate(row["texts_per_second"][name]) for name in names),
            f"**{row['ratio']:.2f}**",
        ]
        for row in found["rows"]
    ]
    weights = ", ".join(f"{name} {about['weights']}" for name, about in found["sides"].items())
    return (
        f"## Embeddings\n\n`{found['model']}` ({weights}), texts as token ids to vectors.\n\n"
        f"{_table(['texts per second', *names, 'ratio'], lines)}"
    )


def _portal(portal: Mapping[str, Any]) -> str:
    alone = portal["alone"]
    lines = [
        [name, f"{portal[key]:.1f}", f"{portal[key] / alone:.0%}"]
        for name, key in (("engine alone", "alone"), ("WebSocket", "websocket"), ("SSE", "sse"))
    ]
    heading = [f"{portal['streams']} streams", "tokens per second", "of the engine alone"]
    added = portal["first_portal_ms"] - portal["first_alone_ms"]
    return (
        "## Through the portal\n\nThe client runs on the same cores.\n\n"
        f"{_table(heading, lines)}\n"
        f"First token of one stream, p50: {portal['first_alone_ms']:.1f} ms from the engine alone, "
        f"{portal['first_portal_ms']:.1f} ms through the portal, which adds {added:.1f} ms.\n"
    )


def _request(request: Mapping[str, Any]) -> str:
    lines = [
        [name, *(f"{request[key][figure]:.1f}" for figure in ("p50_ms", "p95_ms", "cpu_ms"))]
        for name, key in (("a plain key", "plain"), ("a key with every limit", "held"))
    ]
    heading = ["a request with", "p50, ms", "p95, ms", "of the processor, ms"]
    return (
        "## The portal's own time per request\n\n"
        "From a chat completion's arrival in the portal until its job is queued, on "
        f"{request['database']}, {request['count']} requests one after another.\n\n"
        f"{_table(heading, lines)}\n"
    )


def _usage(usage: Mapping[str, Any]) -> str:
    lines = [
        [name, *(f"{page[figure]:.0f}" for figure in ("p50_ms", "p95_ms", "cpu_ms"))]
        for name, page in usage["pages"].items()
    ]
    heading = ["page", "p50, ms", "p95, ms", "of the portal's processor, ms"]
    return (
        f"## A team's pages with {usage['jobs']:,} jobs\n\nOn PostgreSQL, 90 days, the largest "
        f"team of 200 with a third of the jobs.\n\n{_table(heading, lines)}\n"
    )


def _goals(results: Mapping[str, Any]) -> str:
    held = goals.held_against(results)
    lines = [
        [
            goal.what,
            f"{'≤' if goal.most else '≥'} {goal.wanted:g} {goal.unit}",
            f"{goal.found:.3g} {goal.unit}",
            "yes" if goal.reached else "**not yet**",
        ]
        for goal in held
    ]
    missing = [goal.what for goal in held if not goal.reached]
    said = f"Not yet reached: {'; '.join(missing)}." if missing else "All of them are reached."
    return f"## Goals\n\n{_table(['', 'goal', 'found', 'reached'], lines)}\n{said}\n"


def _table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heading, ["---"] * len(heading), *lines]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("results", type=Path, nargs="?")
    path = parser.parse_args().results or max(RESULTS.glob("*.json"), default=None)
    if path is None or not path.is_file():
        print(f"{path or RESULTS} holds no results. Run `make bench` first.", file=sys.stderr)
        return 1
    results = json.loads(path.read_text())
    (DOCS / "performance.md").write_text(page(results))
    if results.get("rows"):
        (DOCS / "performance.svg").write_text(chart(results))
    print(f"docs/performance.md says what {path.name} found.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
