"""Weights as files: every lie in a header is found before anything is built from it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from inference_workers import loading
from inference_workers.errors import ModelError
from inference_workers.models import loader, resources
from inference_workers.models.loader import WeightReader
from inference_workers.models.resources import available_memory, require_memory
from inference_workers.models.safetensors_file import read_header
from tests.inference_workers.model_files import llama_tensors, write_llama


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "origin") / "model.safetensors"


@pytest.mark.parametrize("shards", [1, 3])
def test_it_reads_every_tensor(shards: int, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "origin", shards=shards)
    expected = llama_tensors()
    with WeightReader(folder) as reader:
        assert set(reader) == set(expected)
        assert len(reader) == len(expected)
        for name, values in expected.items():
            assert torch.equal(reader[name], torch.from_numpy(values))
        with pytest.raises(KeyError):
            reader["lm_head.weight"]


def test_a_tensor_outlives_its_reader(weights: Path) -> None:
    with WeightReader(weights.parent) as reader:
        tensor = reader["model.norm.weight"]
    assert torch.equal(tensor, load_file(weights)["model.norm.weight"])


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 200, -1, -1000])
def test_a_file_cut_off_anywhere_is_refused(cut: int, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(ModelError, match="cut off") as caught:
        read_header(weights)
    assert caught.value.code == "truncated"


def test_bytes_after_the_end_are_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelError, match="follow its last tensor"):
        read_header(weights)


def test_an_absurd_header_length_is_refused_unread(weights: Path) -> None:
    weights.write_bytes(struct.pack("<Q", 2**63) + weights.read_bytes()[8:])
    with pytest.raises(ModelError, match="absurdly long"):
        read_header(weights)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["model.norm.weight"].update(shape=[63]),
        lambda h: h["model.norm.weight"].update(shape=[-64]),
        lambda h: h["model.norm.weight"].update(dtype="F7"),
        lambda h: h["model.norm.weight"].update(data_offsets=[0, 256]),
        lambda h: h["model.layers.0.input_layernorm.weight"].update(
            data_offsets=h["model.layers.1.input_layernorm.weight"]["data_offsets"]
        ),
        lambda h: h["model.norm.weight"].pop("data_offsets"),
        lambda h: h.update(extra=3),
        lambda h: h.pop("model.norm.weight"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], None], weights: Path
) -> None:
    rewrite(weights, change)
    with pytest.raises(ModelError) as caught:
        read_header(weights)
    assert caught.value.code == "corrupt"
    assert "model.safetensors" in caught.value.message


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_end_in_a_clear_error(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(struct.pack("<Q", max(0, len(data) - 20)) + data)
    with pytest.raises(ModelError):
        read_header(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "origin", shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ModelError, match="two files"):
        WeightReader(folder)


def test_too_little_memory_is_said_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 2_000_000_000)
    require_memory(1_999_999_999, "small")
    with pytest.raises(ModelError, match=r"small needs 3\.0 GB of memory and 2\.0 GB are free"):
        require_memory(3_000_000_000, "small")


def test_a_model_too_large_for_the_memory_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference_workers.models.prepare import prepare
    from inference_workers.models.report import silent

    prepare(str(write_llama(tmp_path / "origin")), "small", tmp_path / "out", silent())
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    with pytest.raises(ModelError) as caught:
        loader.load(tmp_path / "out", dtype=torch.float32, device="cpu")
    assert caught.value.code == "too_little_memory"


def test_the_machine_tells_its_free_memory() -> None:
    available = available_memory()
    assert available is None or available > 1 << 20


GROUP = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def limited(folder: Path, version: int, limit: str, used: int = 50 << 20) -> None:
    """A control group that uses so much, a fifth of it files that can be dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    names = GROUP[version]
    for name, text in zip(names, (limit, str(used)), strict=False):
        (folder / name).write_text(text + "\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {used // 5}\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tight", ["", "service", "service/worker"])
def test_the_tightest_limit_of_container_and_service_counts(
    version: int, tight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "memory" if version == 1 else tmp_path
    for folder in ("", "service", "service/worker"):
        none = "max" if version == 2 else str(1 << 62)
        limited(root / folder, version, str(100 << 20) if folder == tight else none)
    listed = "4:memory:/service/worker\n0::/\n" if version == 1 else "0::/service/worker\n"
    (tmp_path / "own").write_text("1:cpu:/\n" + listed)
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_OWN_CGROUPS", tmp_path / "own")
    assert available_memory() == 60 << 20


def test_a_containers_limit_counts_where_its_path_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(tmp_path, 2, str(100 << 20))
    (tmp_path / "own").write_text("0::/docker/5f3a\n")
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_OWN_CGROUPS", tmp_path / "own")
    assert available_memory() == 60 << 20


@pytest.mark.parametrize(("free", "expected"), [(1 << 30, 256 << 20), (64 << 30, 512 << 20)])
def test_the_cache_takes_no_more_than_a_quarter_of_what_is_free(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: free)
    assert loading._room_for_cache("m", "cpu") == expected


def test_too_little_memory_for_any_cache_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 20 << 20)
    with pytest.raises(ModelError, match="The cache of m needs") as caught:
        loading._room_for_cache("m", "cpu")
    assert caught.value.code == "too_little_memory"
