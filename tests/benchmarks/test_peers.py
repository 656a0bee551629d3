"""Peers are found by their environments' names; those that can't run are said and left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import Peer, candidates, started
from benchmarks.process import SideError
from benchmarks.weights import Files

OWN = Path(sys.executable)
FILES = Files(Path("dense"), Path("model.gguf"))


def environment(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name / "bin").mkdir(parents=True)
        (folder / name / "bin" / "python").touch()
    return folder


def test_transformers_is_always_a_peer_and_takes_float32_too_where_the_cpu_lacks_bfloat16() -> None:
    found = candidates(None, FILES, OWN, bfloat16=False)
    assert [(p.name, p.python, p.dtype) for p in found] == [
        ("transformers", OWN, "bfloat16"),
        ("transformers", OWN, "float32"),
    ]
    assert [p.dtype for p in candidates(None, FILES, OWN, bfloat16=True)] == ["bfloat16"]


def test_each_environment_named_after_a_peer_is_tried_with_the_file_that_it_reads(
    tmp_path: Path,
) -> None:
    folder = environment(tmp_path, "llamacpp", "vllm", "transformers-cb", "notes")
    found = candidates(folder, FILES, OWN, bfloat16=True)
    assert {p.name: str(p.model) for p in found} == {
        "transformers": "dense",
        "transformers-cb": "dense",
        "llamacpp": "model.gguf",
        "vllm": "dense",
    }
    assert all(p.python == folder / p.name / "bin" / "python" for p in found if p.python != OWN)


def test_a_folder_without_any_peer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SideError, match="no virtual environment of a peer"):
        candidates(environment(tmp_path, "somebody"), FILES, OWN, bfloat16=True)


def test_a_peer_that_cannot_run_is_left_out_with_its_reason() -> None:
    listed = [Peer("echo", OWN, Path("0.001")), Peer("llamacpp", OWN, Path("x"), "GGUF")]
    with started(listed, 4) as found:
        assert list(found.running) == ["echo"]
        assert "llama_cpp" in found.left_out["llamacpp GGUF"]
        assert found.about["echo bfloat16"]["weights"] == "none"
