"""Preparing a model: whole or not at all, once, and never with something that could run."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inference_workers.errors import ModelError
from inference_workers.models import folder as folder_module
from inference_workers.models import hub, prepare, resources
from inference_workers.models.check import check
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.models.report import silent
from tests.inference_workers.model_files import write_gemma_gguf, write_llama

ROOT = Path(__file__).parents[2]


def prepared(source: str | Path, out: Path, **options: Any) -> Manifest:
    return prepare.prepare(str(source), "small", out, silent(), **options)


def refused(source: str | Path, out: Path, code: str) -> str:
    """The refusal's message; nothing is left behind."""
    with pytest.raises(ModelError) as caught:
        prepared(source, out)
    assert caught.value.code == code, caught.value.message
    left = {p.name for p in out.parent.iterdir()} if out.parent.exists() else set()
    assert not {n for n in left if n.startswith((out.name, f".{out.name}."))} - {
        f".{out.name}.lock"
    }
    return caught.value.message


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "inference_workers", *arguments]


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "origin")


def test_a_folder_becomes_a_prepared_model(origin: Path, tmp_path: Path) -> None:
    manifest = prepared(origin, tmp_path / "out")
    assert manifest.family == "llama"
    assert manifest.architecture == "LlamaForCausalLM"
    assert manifest.format == "fp32"
    assert manifest.context_length == 512
    assert (manifest.bos_token_id, manifest.add_bos, manifest.eos_token_ids) == (256, False, (257,))
    assert manifest.kind == "base"
    assert manifest.commit is None
    assert read_manifest(tmp_path / "out") == manifest
    assert check(tmp_path / "out", silent()) == manifest
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "manifest.json", "model.safetensors", "config.json", "tokenizer.json",
        "config.resolved.json", "vocabulary.table",
    }  # fmt: skip


def test_a_chat_template_makes_it_an_instruct_model(origin: Path, tmp_path: Path) -> None:
    (origin / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert prepared(origin, tmp_path / "out").kind == "instruct"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert prepared(origin, tmp_path / "two", kind="base").kind == "base"


def test_sharded_weights_stay_sharded(tmp_path: Path) -> None:
    origin = write_llama(tmp_path / "origin", shards=3)
    manifest = prepared(origin, tmp_path / "out")
    whole = prepared(write_llama(tmp_path / "single"), tmp_path / "two")
    assert manifest.parameters == whole.parameters
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
    assert check(tmp_path / "out", silent()) == manifest


def test_a_gguf_file_becomes_a_prepared_model(tmp_path: Path) -> None:
    manifest = prepared(write_gemma_gguf(tmp_path / "small.gguf"), tmp_path / "out")
    assert (manifest.family, manifest.format) == ("gemma3", "int8")
    assert (manifest.bos_token_id, manifest.add_bos, manifest.eos_token_ids) == (2, True, (1,))
    assert check(tmp_path / "out", silent()) == manifest


def test_the_echo_model_maps_bytes_to_themselves(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    manifest = prepared("echo", tmp_path / "out")
    assert (manifest.family, manifest.format, manifest.context_length) == ("echo", "none", 8192)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "héllo  你好 \x00\n🙂" + "".join(map(chr, range(256)))
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.encode("<s></s>").ids == [256, 257]


def test_a_ready_model_is_not_made_again(origin: Path, tmp_path: Path) -> None:
    first = prepared(origin, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    before = weights.stat().st_ino
    assert prepared(origin, tmp_path / "out") == first
    assert weights.stat().st_ino == before


def test_another_source_replaces_it(origin: Path, tmp_path: Path) -> None:
    prepared(origin, tmp_path / "out")
    other = write_llama(tmp_path / "other", max_position_embeddings=64)
    assert prepared(other, tmp_path / "out").context_length == 64
    assert {p.name for p in tmp_path.iterdir()} == {"origin", "other", "out", ".out.lock"}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "manifest.json"])
def test_a_damaged_model_is_made_again(name: str, origin: Path, tmp_path: Path) -> None:
    first = prepared(origin, tmp_path / "out")
    damaged = tmp_path / "out" / name
    damaged.write_bytes(damaged.read_bytes()[:-10])
    assert prepared(origin, tmp_path / "out").digest == first.digest
    assert check(tmp_path / "out", silent()).digest == first.digest


def test_a_kill_in_the_middle_leaves_nothing_half_made(origin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slow = (
        "import time, sys\n"
        "from inference_workers.models import describe, prepare, report\n"
        "real = describe.describe\n"
        "def describe_slowly(*a, **k):\n"
        "    print('here', flush=True); time.sleep(60)\n"
        "describe.describe = describe_slowly\n"
        f"prepare.prepare({str(origin)!r}, 'small', prepare.Path({str(out)!r}), report.silent())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert (tmp_path / ".out.partial").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    assert not out.exists()
    manifest = prepared(origin, out)
    assert check(out, silent()) == manifest
    assert not (tmp_path / ".out.partial").exists()


def test_it_waits_for_another_that_prepares_the_same(origin: Path, tmp_path: Path) -> None:
    arguments = (
        "prepare",
        "--source",
        str(origin),
        "--id",
        "small",
        "--out",
        str(tmp_path / "out"),
    )
    with (tmp_path / ".out.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert "Waiting" in process.stdout.readline()
        time.sleep(0.3)
        assert process.poll() is None
        assert not (tmp_path / ".out.partial").exists()
    rest, _ = process.communicate(timeout=60)
    assert "manifest" in json.loads(rest.splitlines()[-1])


def test_two_at_once_make_it_once(origin: Path, tmp_path: Path) -> None:
    arguments = (
        "prepare",
        "--source",
        str(origin),
        "--id",
        "small",
        "--out",
        str(tmp_path / "out"),
    )
    running = [
        subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    manifests = {json.dumps(json.loads(lines[-1])["manifest"]) for lines in outputs}
    assert len(manifests) == 1
    said = [json.loads(lines[-2])["message"] for lines in outputs]
    assert sorted(said) == ["small is already prepared"] * 2 + ["small is prepared"]


def test_the_command_speaks_json_lines(origin: Path, tmp_path: Path) -> None:
    arguments = (
        "prepare",
        "--source",
        str(origin),
        "--id",
        "small",
        "--out",
        str(tmp_path / "out"),
    )
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert done.stderr == ""
    fractions = [line["progress"] for line in lines[:-1]]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert lines[-1]["manifest"]["id"] == "small"
    checked = subprocess.run(
        command("check", "--path", str(tmp_path / "nowhere")),
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 1
    assert json.loads(checked.stdout)["error"]["code"] == "not_prepared"


def test_a_wrong_family_is_said(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="llama, not gemma3"):
        prepared(origin, tmp_path / "out", family="gemma3")


def test_pickled_weights_are_never_opened(origin: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (origin / "model.safetensors").unlink()
    (origin / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "pickle" in refused(origin, tmp_path / "out", "pickle").lower()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_a_checkpoint_is_refused(name: str, origin: Path, tmp_path: Path) -> None:
    content = json.loads((origin / name).read_text()) if (origin / name).exists() else {}
    content["auto_map"] = {"AutoModelForCausalLM": "modeling.Evil"}
    (origin / name).write_text(json.dumps(content))
    (origin / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "never run" in refused(origin, tmp_path / "out", "remote_code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target", ["../secret.safetensors", "/etc/passwd.safetensors", "a/b.safetensors"]
)
def test_an_index_that_points_outside_is_refused(target: str, origin: Path, tmp_path: Path) -> None:
    (origin / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": target}}
    (origin / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(origin, tmp_path / "out", "unsafe_path")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_that_leaves_the_folder_is_refused(name: str, origin: Path, tmp_path: Path) -> None:
    (origin / name).rename(tmp_path / name)
    (origin / name).symlink_to(tmp_path / name)
    assert name in refused(origin, tmp_path / "out", "unsafe_path")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_an_absurdly_large_file_is_refused_unread(name: str, origin: Path, tmp_path: Path) -> None:
    with (origin / name).open("r+b") as file:
        file.truncate(folder_module.MAX_SIZES[name] + 1)
    began = time.monotonic()
    refused(origin, tmp_path / "out", "too_large")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, origin: Path, tmp_path: Path) -> None:
    (origin / name).unlink()
    assert name.split(".")[-1] in refused(origin, tmp_path / "out", "missing_file")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    origin = write_llama(tmp_path / "origin", shards=3)
    (origin / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002" in refused(origin, tmp_path / "out", "missing_file")


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '"text"', "\udcff", "{}"])
def test_a_config_of_nonsense_is_refused(text: str, origin: Path, tmp_path: Path) -> None:
    (origin / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError) as caught:
        prepared(origin, tmp_path / "out")
    assert caught.value.code in {"corrupt", "unknown_architecture"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 3}, "no tensor 'model.layers.2."),
        ({"hidden_size": 128}, "has shape"),
        ({"rope_scaling": {"rope_type": "magic", "factor": 2.0}}, "magic"),
    ],
)
def test_weights_that_no_worker_could_serve_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    message = refused(write_llama(tmp_path / "origin", **config), tmp_path / "out", "bad_model")
    assert message.startswith("small can't be served.")
    assert said in message


def test_a_model_too_large_for_this_machine_is_prepared_for_another(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    assert prepared(origin, tmp_path / "out").id == "small"


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    origin = write_llama(tmp_path / "origin", model_type="perceptron")
    assert "perceptron" in refused(origin, tmp_path / "out", "unknown_architecture")


def test_a_damaged_tokenizer_is_refused(origin: Path, tmp_path: Path) -> None:
    (origin / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    refused(origin, tmp_path / "out", "corrupt")


def test_a_changed_byte_is_found_by_check(origin: Path, tmp_path: Path) -> None:
    prepared(origin, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="changed") as caught:
        check(tmp_path / "out", silent())
    assert caught.value.code == "digest_mismatch"


def test_a_full_disk_is_foreseen(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "DISK_RESERVE", 1 << 60)
    assert "Make room" in refused(origin, tmp_path / "out", "too_little_disk")


@pytest.mark.parametrize(
    "source",
    ["pypi:requests", "hub:", "hub:../../etc", "hub:a/b@../c", "relative/path", "ftp://x/y"],
)
def test_a_source_that_is_none_is_refused(source: str, tmp_path: Path) -> None:
    refused(source, tmp_path / "out", "bad_source")


def test_a_hub_that_is_out_of_reach_says_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    message = refused("hub:org/name", tmp_path / "out", "hub_unreachable")
    assert "org/name" in message
    assert "local folder" in message


def test_only_harmless_files_are_fetched_from_a_hub() -> None:
    wanted = {"config.json": 500, "tokenizer.json": 1000, "model.safetensors": 9000}
    others = ["tokenizer.model", "pytorch_model.bin", "modeling_x.py", "a/model.safetensors"]
    files = wanted | dict.fromkeys(others, 5)
    chosen = hub.choose_files("org/name", files)
    assert chosen == wanted
    with pytest.raises(ModelError, match="pickled"):
        hub.choose_files("org/name", {"config.json": 500, "pytorch_model.bin": 9000})
