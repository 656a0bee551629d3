"""What preparation writes for quick starts says the same as the libraries, or is not believed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from inference_workers.models import prepare, registry
from inference_workers.models.derived import (
    RESOLVED,
    TABLE,
    derive,
    read_vocabulary,
    resolved_config,
)
from inference_workers.models.loader import library_config
from inference_workers.models.manifest import read_manifest
from inference_workers.models.report import silent
from tests.inference_workers.checkpoints import (
    GENERIC,
    LEAN,
    job,
    prompts,
    reference,
    run,
    serving,
    tokenizer,
    tokens,
)
from tests.inference_workers.model_files import write_llama


def saved(folder: Path, config: Any) -> Path:
    config.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    derive(folder)
    return folder


def answers(config: Any, weights: Any) -> list[tuple[int, ...]]:
    served = serving(registry.build(config, weights, dtype=torch.float32))
    jobs = [job(str(i), prompt) for i, prompt in enumerate(prompts(3, seed=1))]
    done = run(served, jobs)
    return [tokens(done[each.id]) for each in jobs]


@pytest.mark.parametrize("name", LEAN)
def test_a_model_answers_the_same_from_its_resolved_configuration(
    name: str, tmp_path: Path
) -> None:
    module = reference(name)
    resolved = resolved_config(saved(tmp_path, module.config))
    assert resolved is not None
    assert answers(resolved, module.state_dict()) == answers(
        library_config(tmp_path, name), module.state_dict()
    )


def test_a_configuration_around_a_text_model_is_resolved_too(tmp_path: Path) -> None:
    whole = transformers.Gemma3Config(
        text_config=reference("gemma3").config.to_dict(), vision_config={"num_hidden_layers": 1}
    )
    whole.architectures = ["Gemma3ForConditionalGeneration"]
    resolved = resolved_config(saved(tmp_path, whole))
    assert resolved is not None
    weights = reference("gemma3").state_dict()
    assert answers(resolved, weights) == answers(reference("gemma3").config, weights)


@pytest.mark.parametrize("name", GENERIC[:2])
def test_what_transformers_itself_serves_is_left_to_it(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, reference(name).config)
    assert not (folder / RESOLVED).exists()


def test_the_table_says_what_the_tokenizer_says(tmp_path: Path) -> None:
    folder = saved(tmp_path, reference("llama").config)
    found, whole = read_vocabulary(folder), tokenizer()
    assert (folder / TABLE).exists()
    assert found.table is not None
    assert found.special == set(whole.get_added_tokens_decoder())
    assert [found.table.bytes_of(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    assert found.table.bytes_of(256) == b"<256>"
    assert found.table.bytes_of(10_000) == b""
    assert found.table.bytes_of(-1) == b""


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_changed_file_is_read_anew(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, reference("llama").config)
    path = folder / name
    path.write_text(path.read_text().replace("<299>", "<two>").replace("silu", "relu"))
    if name == "tokenizer.json":
        table = read_vocabulary(folder).table
        assert table is not None
        assert table.bytes_of(299) == b"<two>"
    else:
        assert resolved_config(folder) is None
    derive(folder)
    assert (resolved_config(folder) is None) == (name == "config.json")  # relu is not lean


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -300])
def test_a_damaged_file_is_not_believed(cut: int, tmp_path: Path) -> None:
    folder = saved(tmp_path, reference("llama").config)
    for name in (TABLE, RESOLVED):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:cut])
    table = read_vocabulary(folder).table
    assert table is not None
    assert table.bytes_of(65) == b"A"
    assert resolved_config(folder) is None
    derive(folder)
    assert resolved_config(folder) is not None


def test_a_folder_prepared_before_gets_them_when_it_is_prepared_again(tmp_path: Path) -> None:
    origin, out = write_llama(tmp_path / "origin"), tmp_path / "small"
    prepare.prepare(str(origin), "small", out, silent())
    digest = read_manifest(out).digest
    (out / TABLE).unlink()
    (out / RESOLVED).unlink()
    prepare.prepare(str(origin), "small", out, silent())
    assert (out / TABLE).exists()
    assert (out / RESOLVED).exists()
    assert read_manifest(out).digest == digest


LOADS = """
import sys
from pathlib import Path
from inference_workers.config import WorkerSettings
from inference_workers.loading import load_engine
from inference_workers.models.manifest import read_manifest
path = Path(sys.argv[1])
settings = WorkerSettings("small", path, "w", "", slots=2, kv_memory=1 << 20, threads=1)
engine = load_engine(read_manifest(path), settings, lambda share, message: None).engine
print(engine.capacity(), "transformers" in sys.modules)
"""


def test_a_worker_starts_without_transformers(tmp_path: Path) -> None:
    origin, out = write_llama(tmp_path / "origin"), tmp_path / "small"
    prepare.prepare(str(origin), "small", out, silent())
    (out / "tokenizer.json").touch()
    said = subprocess.run(
        [sys.executable, "-c", LOADS, str(out)], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["2", "False"]
    assert json.loads((out / RESOLVED).read_text())["config"]["hidden_act"] == "silu"
