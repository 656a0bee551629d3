"""Our own side measures what it says, on a small model's real engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import peaks, worker
from benchmarks.comparison import PREFILL
from benchmarks.roofline import Roofline
from benchmarks.served import Served
from benchmarks.weights import write_dense
from inference_workers.layers.linear import Packed
from inference_workers.models.folder import find_weights
from inference_workers.models.loader import WeightReader
from inference_workers.models.prepare import prepare
from inference_workers.models.report import silent
from tests.inference_workers.model_files import write_gemma_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bench")
    write_gemma_gguf(place / "small.gguf")
    prepare(str(place / "small.gguf"), "small", place / "small", silent())
    return place / "small"


@pytest.fixture
def served(folder: Path) -> Served:
    return Served(folder, 8, kv_memory=8 << 20)


def slowed(served: Served, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Make each prompt token cost ``seconds``; rows of every step."""
    steps: list[int] = []
    run = served._engine._runner.run

    def slow(work: Any) -> Any:
        steps.append(sum(item.count for item in work))
        time.sleep(seconds * sum(item.count for item in work if item.count > 1))
        return run(work)

    monkeypatch.setattr(served._engine._runner, "run", slow)
    return steps


def test_decoding_is_timed_without_the_prompts(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = slowed(served, monkeypatch, 0.01)
    began = time.perf_counter()
    took = served.decode([[5, 6, 7, 8]] * 4, 6)
    whole = time.perf_counter() - began
    assert steps == [16, *[4] * 6]
    assert took < whole - 16 * 0.01


def test_an_arriving_prompt_shows_in_the_gaps_of_all_that_decode(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = slowed(served, monkeypatch, 0.005)
    prompt = list(range(5, 50)) * 2
    found = served.arrival([[5, 6, 7]] * 3, prompt, 12)
    assert len(found["gaps"]) >= 3 * 12
    assert len(found["usual"]) >= 3 * 11
    assert sum(rows > 3 for rows in steps[1:]) < 5, "the prompt is computed in a few steps"
    assert sum(found["gaps"]) >= 3 * len(prompt) * 0.005  # felt by each stream
    assert max(found["usual"]) < 0.4
    assert found["first"] > 0.4
    assert not served._engine.busy


def test_a_shared_instruction_is_computed_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = slowed(served, monkeypatch, 0.001)
    found = served.shared(64, 3)
    assert (found["hits"], found["lookups"]) == (3 * 64, 3 * 84)
    # An unmeasured first, then cold and warm in turn: 64 + 20 tokens and 20.
    assert [rows for rows in steps if rows > 1] == [84, *[84, 20] * 3]
    assert min(found["cold"]) > max(found["warm"])


def test_guided_requests_and_plain_ones_are_beside_the_same_streams(served: Served) -> None:
    steps = slowed(served, pytest.MonkeyPatch(), 0)
    found = served.guided([[5, 6, 7]] * 3, 12, 2)
    # The first token of all that are beside is not theirs alone: it may come late.
    assert 2 * 3 * 8 <= len(found["plain"]) <= 2 * 3 * 11
    assert 2 * 3 * 4 <= len(found["guided"]) <= 2 * 3 * 11
    assert all(gap > 0 for gaps in found.values() for gap in gaps)
    assert max(steps) >= 6
    assert not served._engine.busy


def test_the_peaks_are_figures_of_this_machine(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks, "SECONDS", 0.01)
    found = served.peaks()
    assert 1e8 < found["bandwidth"] < 1e13
    assert all(found[name] > 1e7 for name in ("float32", "bfloat16"))


def test_the_roofline_counts_every_matrix_once_and_the_cache(folder: Path) -> None:
    fast = {"bandwidth": 1e30, "float32": 1e30, "bfloat16": 1e30, "int8": 1e30}
    narrow = fast | {"bandwidth": 1.0}
    engine = {"kernels": True, "dtype_bytes": 4, "cache_bytes": 2, "layers": [[10, None], [10, 4]]}
    tensors = find_weights(folder).tensors
    matrices = {n: h for n, h in tensors.items() if len(h.shape) == 2}
    head = matrices.pop("model.embed_tokens.weight")
    weights = sum(h.end - h.begin for h in matrices.values())
    upper = -(-head.shape[0] // 16) * (head.shape[1] // 32) * (32 + 256)
    alone = Roofline(folder, narrow, engine).step([0])
    assert (alone.by, alone.seconds) == ("memory", weights + upper + 2 * 10 * 2)
    # Nine earlier tokens: all of them in one layer, the last three and its own in the other.
    later = Roofline(folder, narrow, engine).step([9])
    assert later.seconds == weights + upper + 10 * 10 * 2 + 4 * 10 * 2
    slow = fast | {"int8": 1.0}
    busy = Roofline(folder, slow, engine).step([0], PREFILL)
    layers = sum(h.parameters for h in matrices.values())
    assert busy.by == "compute"
    assert busy.seconds == pytest.approx(2 * (layers * PREFILL + head.parameters))


def test_peers_get_the_numbers_that_packed_weights_stand_for(folder: Path, tmp_path: Path) -> None:
    write_dense(folder, tmp_path / "dense")
    dense = load_file(tmp_path / "dense" / "model.safetensors")
    packed = 0
    with WeightReader(folder) as weights:
        assert dense.keys() == set(weights)
        for name, values in dense.items():
            own = weights[name]
            if isinstance(own, Packed):
                packed += 1
                own = own.dense(torch.bfloat16, torch.device("cpu"))
            np.testing.assert_array_equal(values.float(), own.to(torch.bfloat16).float())
    assert packed > 10
    assert {p.name for p in (tmp_path / "dense").iterdir()} >= {"config.json", "tokenizer.json"}


def test_a_workers_start_and_peak_memory_are_its_own(folder: Path) -> None:
    found = worker.measure(folder, starts=1, kv_memory=1 << 20)
    assert 0.2 < found.ready[0] < 60
    assert found.peak >= found.idle > found.mapped > 10 << 20  # libraries
    assert found.share > 1
