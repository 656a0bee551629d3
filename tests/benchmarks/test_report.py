"""The page about performance comes from a results file, whole."""

from __future__ import annotations

import copy
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import goals
from benchmarks.report import chart, page


def sample(median: float) -> dict[str, Any]:
    return {"median": median, "low": median * 0.9, "high": median * 1.1, "values": [median] * 5}


def row(what: str, batch: int, ours: float, **peers: float) -> dict[str, Any]:
    best = max(peers, key=lambda name: peers[name])
    return {
        "what": what,
        "batch": batch,
        "tokens_per_second": {n: sample(r) for n, r in {"llmasos": ours, **peers}.items()},
        "ran": {n: f"{n} float32" for n in peers},
        "best_peer": best,
        "ratio": ours / peers[best],
        "roofline": {"tokens_per_second": 2 * ours, "by": "memory", "share": 0.5},
    }


RESULTS: dict[str, Any] = {
    "at": "2030-01-02T03:04:05+00:00",
    "quick": False,
    "machine": {
        "cpu": "A <fast> CPU", "flags": ["avx2"], "cores": 2, "memory_bytes": 8 << 30,
        "system": "Linux 9", "python": "3.11.2", "versions": {"torch": "2.13.0"}, "load": 0.1,
    },
    "model": {"id": "small", "format": "int8", "bytes": 10**8, "parameters": 10**8},
    "peaks": {"bandwidth": 3e10, "float32": 1e11, "int8": 2e11},
    "sides": {"llmasos": {"version": "1", "weights": "int8"}},
    "left_out": {"vllm bfloat16": "it needs AVX-512"},
    "rows": [
        row("decode, batch 1", 1, 60, transformers=15, llamacpp=40),
        row("decode, batch 16", 16, 300, transformers=100, llamacpp=200),
        row("prefill, 1000 tokens", 1, 900, transformers=500, llamacpp=300),
    ],
    "arrival": {
        "streams": 31, "prompt": 1000, "tokens": 48, "usual_p50_ms": 50, "gap_p50_ms": 50,
        "gap_p99_ms": 140, "first_token_ms": sample(900),
    },
    "shared": {"instruction": 500, "cold_ms": sample(400), "warm_ms": sample(40), "hit_rate": 1.0},
    "guides": {
        "streams": 16, "plain_p50_ms": 60.0, "plain_p99_ms": 70, "guided_p50_ms": 66.0,
        "guided_p99_ms": 80,
    },
    "worker": {
        "ready_seconds": sample(3), "peak": 9e8, "mapped": 4e8, "idle": 5e8, "weights": 3e8,
        "cache": 5e8, "share": 1.125, "floor": 2e8,
    },
    "embeddings": {
        "model": "encoder",
        "sides": {"llmasos": {"weights": "fp32"}, "transformers": {"weights": "float32"}},
        "rows": [{
            "what": "64 texts, short", "tokens": 18.2, "ratio": 1.25,
            "texts_per_second": {"llmasos": sample(500), "transformers": sample(400)},
        }],
    },
    "portal": {
        "streams": 32, "alone": 400.0, "websocket": 380.0, "sse": 320.0, "first_alone_ms": 60.0,
        "first_portal_ms": 80.0,
    },
    "request": {
        "database": "PostgreSQL", "count": 300,
        "plain": {"p50_ms": 8.5, "p95_ms": 12, "cpu_ms": 8, "whole_cpu_ms": 15},
        "held": {"p50_ms": 9.5, "p95_ms": 14, "cpu_ms": 9, "whole_cpu_ms": 16},
    },
    "usage": {
        "jobs": 10**6,
        "pages": {
            "usage, 90 days": {"p50_ms": 310, "p95_ms": 350, "cpu_ms": 70},
            "limits": {"p50_ms": 30, "p95_ms": 40, "cpu_ms": 20},
        },
    },
    "quality": {
        "reference": "bfloat16",
        "rows": [
            {"format": "bfloat16", "bytes": 5e8, "speed": {}, "tokens": {"en": 2000},
             "perplexity": {"en": 20.0}, "change": {"en": 0.0}},
            {"format": "as stored", "bytes": 2e8, "speed": {"1": 60.2, "16": 300}, "tokens": {},
             "perplexity": {"en": 20.2}, "change": {"en": 0.01}},
            {"format": "int8", "bytes": 3e8, "speed": {"1": 50, "16": 310}, "tokens": {},
             "perplexity": {"en": 20.08}, "change": {"en": 0.004}},
            {"format": "int4", "bytes": 2e8, "speed": {"1": 70, "16": 290}, "tokens": {},
             "perplexity": {"en": 20.8}, "change": {"en": 0.04}},
            {"format": "llamacpp, Q4_K_M", "peer": True, "tokens": {}, "perplexity": {"en": 20.15},
             "change": {"en": 0.0075}},
        ],
    },
}  # fmt: skip


def test_it_says_what_was_measured_on_what() -> None:
    text = page(RESULTS)
    for said in (
        "2 cores of A <fast> CPU", "**1.50** (llamacpp float32)", "300.0 (270.0–330.0)", "50%",
        "vllm bfloat16 is left out: it needs AVX-512", "of 5 rounds",
        "**1.80** (transformers float32)", "p99 140 ms", "10.0 × sooner",
        "ready 3.0 s after", "adds 20.0 ms",
        "p50 66.0 ms, p99 80.0 ms; beside plain ones, p50 60.0 ms",
        "| a plain key | 8.5 | 12.0 | 8.0 |", "| limits | 30 | 40 | 20 |",
        "| as stored | 200 MB | 60 | 300 | 20.20 (+1.00 %) |",
        "| bfloat16 | 500 MB |  |  | 20.00 |", "`en` (2,000 tokens)", "(performance.svg)",
        "64 texts, short (18 tokens on average)", "500.0 (450.0–550.0)", "**1.25**",
    ):  # fmt: skip
        assert said in text, said


def test_it_says_whose_samples_were_made_of_fewer_tokens() -> None:
    results = copy.deepcopy(RESULTS)
    results["rows"][0]["tokens"] = {"llmasos": 48, "transformers": 48, "llamacpp": 48}
    results["rows"][1]["tokens"] = {"llmasos": 48, "transformers": 8, "llamacpp": 20}
    said = "tokens a sequence: decode, batch 16: transformers 8, llamacpp 20 of 48.\n"
    assert said in page(results)
    assert "Samples of fewer" not in page(RESULTS)  # a run that bounded nothing


def test_every_goal_is_held_against_its_figure_and_what_is_missing_is_said() -> None:
    held = {goal.what: goal.reached for goal in goals.held_against(RESULTS)}
    assert held["decode, batch 1, over the best peer (llamacpp)"]
    assert not held["decode, batch 16, over the best peer (llamacpp)"]  # 1.5 of 2
    assert held["decode, batch 16, over transformers.generate"]
    assert held["prefill, 1000 tokens, over llama.cpp"]
    assert not held["gap of 16 streams beside guided ones, over beside plain ones"]  # 1.1 of 1.05
    assert held["perplexity of int8 over bfloat16's, en"]
    assert not held["perplexity of int4 over bfloat16's, en"]  # 4 of 3 %
    assert held["perplexity as stored over llamacpp, Q4_K_M's, en"]
    assert not held["perplexity int4 over llamacpp, Q4_K_M's, en"]  # 3.2 of 0.5 %
    assert not held["embeddings, 64 texts, short, over transformers"]  # 1.25 of 1.5
    assert not held["32 streams over SSE, over the engine alone"]
    assert held["a request with a key until its job is queued, p50"]
    assert not held["the slowest usage page with 1,000,000 jobs, p50"]
    missing = page(RESULTS).partition("Not yet reached: ")[2]
    assert "decode, batch 16, over the best peer" in missing
    assert "batch 1," not in missing.partition("\n")[0]


@pytest.mark.parametrize(
    "part",
    [
        "arrival",
        "shared",
        "guides",
        "worker",
        "embeddings",
        "portal",
        "request",
        "usage",
        "quality",
        "rows",
    ],
)
def test_a_run_of_some_parts_makes_a_page_too(part: str) -> None:
    results = copy.deepcopy(RESULTS)
    del results[part]
    assert page(results).startswith("# How fast it is")


def test_with_transformers_alone_the_goal_is_the_one_for_it() -> None:
    results = copy.deepcopy(RESULTS)
    for found in results["rows"]:
        del found["ran"]["llamacpp"]
        del found["tokens_per_second"]["llamacpp"]
        found["best_peer"] = "transformers"
    held = [goal.what for goal in goals.held_against(results)]
    assert "decode, batch 1, over transformers.generate" in held
    assert not any("best peer" in what or "llama.cpp" in what for what in held)


def test_the_chart_is_a_drawing_that_fits_and_can_be_read_aloud() -> None:
    drawing = ElementTree.fromstring(chart(RESULTS))
    assert "decode, batch 1 1.50 × llamacpp" in drawing.attrib["aria-label"]
    width = float(drawing.attrib["viewBox"].split()[2])
    space = "{http://www.w3.org/2000/svg}"
    bars = [r for r in drawing.iter(f"{space}rect") if r.attrib["class"] == "bar"]
    ends = [float(bar.attrib["x"]) + float(bar.attrib["width"]) for bar in bars]
    assert len(bars) == 3
    assert all(end < width for end in ends)
    assert ends[2] == max(ends)  # prefill's ratio, 1.8, is the largest
    assert "prefers-color-scheme: dark" in (drawing.findtext(f"{space}style") or "")
