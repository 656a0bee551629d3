"""A lighter version: made whole, packed where it pays, refused where it would only lose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from inference_workers import measure, perplexity
from inference_workers.errors import ModelError
from inference_workers.layers.linear import Packed
from inference_workers.layers.packing import KINDS, unpack
from inference_workers.layers.quantize import quantized
from inference_workers.models import loader, prepare, quantize, safetensors_file
from inference_workers.models.check import check
from inference_workers.models.folder import find_weights
from inference_workers.models.loader import WeightReader
from inference_workers.models.manifest import Manifest, Origin, read_manifest
from inference_workers.models.quantize import Format
from inference_workers.models.report import silent
from tests.inference_workers.model_files import llama_tensors, write_gemma_gguf, write_llama

ROOT = Path(__file__).parents[2]


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    prepare.prepare(str(write_llama(tmp_path / "source")), "small", tmp_path / "small", silent())
    return tmp_path / "small"


def lighter(path: Path, target: Format = "int4", name: str = "light") -> Manifest:
    return quantize.quantize(path, target, name, path.parent / name, silent())


def headers(folder: Path) -> list[tuple[str, safetensors_file.TensorHeader]]:
    return list(find_weights(folder).tensors.items())


def kinds(folder: Path) -> dict[str, str]:
    return {name: header.kind for name, header in headers(folder)}


def test_projections_are_packed_and_the_vocabulary_keeps_eight_bits(origin: Path) -> None:
    manifest = lighter(origin)
    # 4 bits, a scale and a minimum: enough for a model that knows nothing.
    assert (manifest.format, manifest.bits) == ("int4", 5.0)
    found = kinds(origin.parent / "light")
    assert found.pop("model.embed_tokens.weight") == "q8"
    assert {kind for name, kind in found.items() if "norm" in name} == {""}
    assert {kind for name, kind in found.items() if "norm" not in name} == {"q4m"}


def test_eight_bits_pack_everything_in_eight(origin: Path) -> None:
    lighter(origin, "int8")
    found = kinds(origin.parent / "light")
    assert {kind for name, kind in found.items() if "norm" not in name} == {"q8"}


def test_the_manifest_says_what_it_was_made_from(origin: Path) -> None:
    before, after = read_manifest(origin), lighter(origin)
    assert after.quantized_from == Origin(id="small", digest=before.digest)
    assert (after.source, after.kind, after.parameters) == (
        before.source,
        before.kind,
        before.parameters,
    )
    assert after.bytes < before.bytes
    assert after.digest != before.digest
    assert check(origin.parent / "light", silent()) == after


def test_an_older_manifest_without_an_origin_is_still_read(origin: Path) -> None:
    path = origin / "manifest.json"
    content = json.loads(path.read_text())
    del content["quantized_from"]
    path.write_text(json.dumps(content))
    assert read_manifest(origin).quantized_from is None


def test_written_in_pieces_it_is_what_is_packed_at_once(
    origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_workers.layers.quantize.CHUNK", 64 * 16)
    lighter(origin, "int8")
    with WeightReader(origin) as dense, WeightReader(origin.parent / "light") as packed:
        for name in dense:
            matrix = packed[name]
            if not isinstance(matrix, Packed):
                assert torch.equal(matrix, dense[name])
                continue
            values = dense[name]
            assert isinstance(values, torch.Tensor)
            _, data = quantized(values.numpy(), 8)
            assert np.array_equal(matrix.data.numpy(), data)


def test_it_loads_packed_and_answers(origin: Path) -> None:
    lighter(origin, "int8")
    model, manifest = loader.load(origin.parent / "light", device="cpu")
    dense, _ = loader.load(origin, device="cpu")
    assert manifest.id == "light"
    assert model.shape.bytes < dense.shape.bytes / 2
    texts = [[256, *range(65, 100)]]
    there, here = perplexity.measure(dense, texts), perplexity.measure(model, texts)
    assert there.tokens == here.tokens == 35
    assert here.perplexity == pytest.approx(there.perplexity, rel=0.01)


def test_a_file_of_eight_bits_gets_four(tmp_path: Path) -> None:
    gguf = write_gemma_gguf(tmp_path / "x.gguf", kind="Q8_0")
    prepare.prepare(str(gguf), "small", tmp_path / "small", silent())
    lighter(tmp_path / "small")
    before, after = kinds(tmp_path / "small"), kinds(tmp_path / "light")
    assert before["model.layers.0.mlp.up_proj.weight"] == "q8"
    assert after["model.layers.0.mlp.up_proj.weight"] == "q4m"
    with WeightReader(tmp_path / "small") as old, WeightReader(tmp_path / "light") as new:
        first, second = old["model.embed_tokens.weight"], new["model.embed_tokens.weight"]
        assert isinstance(first, Packed)
        assert isinstance(second, Packed)
        assert torch.equal(first.data, second.data)


def test_the_same_source_gives_the_same_bytes(origin: Path) -> None:
    first, second = lighter(origin), lighter(origin, name="again")
    assert first.digest == second.digest
    assert sorted(p.name for p in origin.parent.iterdir() if "light" in p.name) == [
        ".light.lock", "light",
    ]  # fmt: skip


def test_where_four_bits_stray_too_far_matrices_get_more(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "source")
    sure = {n: (20 if "norm" in n else 6) * t for n, t in llama_tensors().items()}
    save_file(sure, source / "model.safetensors")  # a model whose guesses hang on its weights
    prepare.prepare(str(source), "small", tmp_path / "small", silent())
    manifest = lighter(tmp_path / "small")
    projections = [h for name, h in headers(tmp_path / "light") if "proj" in name]
    assert len({header.kind for header in projections}) > 1
    assert manifest.bits is not None
    assert 5.0 < manifest.bits < 8.5
    written = sum(header.end - header.begin for header in projections)
    weights = sum(header.parameters for header in projections)
    assert manifest.bits == pytest.approx(8 * written / weights, abs=0.01)


def test_a_file_of_few_bits_stays_as_it_is_and_the_refusal_says_what_little_could_be_saved() -> (
    None
):
    def header(kind: str, rows: int) -> safetensors_file.TensorHeader:
        return safetensors_file.TensorHeader("U8", (rows, 64), 0, KINDS[kind].bytes(rows, 64), kind)

    tensors = {
        "model.embed_tokens.weight": header("q8", 16000),
        "model.layers.0.self_attn.v_proj.weight": header("q8", 800),
        "model.layers.0.mlp.up_proj.weight": header("q5", 8000),
        "model.layers.0.mlp.down_proj.weight": header("q4m", 8000),
    }
    plans = quantize.plan(tensors, "int4", 16000)
    assert [(item.name.split(".")[-2], item.bits) for item in plans if item.bits] == [("v_proj", 4)]
    origin = Manifest(
        id="mostly", source="", digest="sha256:" + "0" * 64, format="int8", family="",
        architecture="", parameters=0, context_length=1, vocab_size=16000, bytes=0, prepared_at=0,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"would save 0\.0 MB at the most of 2 MB \(1\.2 %\)"):
        quantize.require_gain(plans, origin, "int4")


@pytest.mark.parametrize(
    ("kind", "target"), [("Q8_0", "int8"), ("Q5_0", "int8"), ("Q4_0", "int4"), ("Q5_0", "int4")]
)
def test_what_could_only_lose_is_refused(kind: str, target: Format, tmp_path: Path) -> None:
    gguf = write_gemma_gguf(tmp_path / "x.gguf", kind=kind)
    prepare.prepare(str(gguf), "small", tmp_path / "small", silent())
    with pytest.raises(ModelError, match=r"already.*only lose") as caught:
        lighter(tmp_path / "small", target)
    assert caught.value.code == "nothing_to_gain"
    assert not (tmp_path / "light").exists()


def test_families_that_need_dense_weights_are_refused(tmp_path: Path, origin: Path) -> None:
    prepare.prepare("echo", "echo", tmp_path / "echo", silent())
    with pytest.raises(ModelError, match="lean family"):
        lighter(tmp_path / "echo")
    config = origin / "config.json"
    config.write_text(config.read_text().replace('"head_dim"', '"hidden_act": "relu", "head_dim"'))
    with pytest.raises(ModelError, match="lean family"):
        lighter(origin)


@pytest.mark.parametrize("name", ["small", "Bad Name", "../x"])
def test_a_bad_name_is_refused(name: str, origin: Path) -> None:
    with pytest.raises(ModelError, match="id") as caught:
        quantize.quantize(origin, "int8", name, origin.parent / "light", silent())
    assert caught.value.code == "bad_id"


def test_numbers_that_are_not_finite_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "source")
    prepare.prepare(str(source), "small", tmp_path / "small", silent())
    path = tmp_path / "small" / "model.safetensors"
    header = safetensors_file.read_header(path)["model.layers.1.mlp.up_proj.weight"]
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little") + header.begin
    data[start : start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        lighter(tmp_path / "small")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith("light")) == []


def test_a_second_time_it_is_found_ready_and_another_origin_makes_it_anew(origin: Path) -> None:
    first = lighter(origin)
    assert lighter(origin) == first
    tokenizer = origin / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    manifest = read_manifest(origin).model_copy(update={"digest": "sha256:" + "0" * 64})
    (origin / "manifest.json").write_text(manifest.model_dump_json())
    assert lighter(origin).digest != first.digest


def test_the_command_tells_its_progress_and_one_result(origin: Path) -> None:
    out = str(origin.parent / "light")
    command = ["quantize", "--path", str(origin), "--format", "int4", "--id", "light", "--out", out]
    done = subprocess.run(
        [sys.executable, "-m", "inference_workers", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert said[-1]["manifest"]["quantized_from"]["id"] == "small"
    fractions = [line["progress"] for line in said[:-1]]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


class TestMeasuring:
    def test_it_finds_memory_speed_and_perplexity(self, origin: Path) -> None:
        found = measure.measure(origin, silent(), windows=1)
        assert found.digest == read_manifest(origin).digest
        assert set(found.speed) == {"1", "16"}
        assert all(rate > 0 for rate in found.speed.values())
        assert set(found.perplexity) == {"en", "zh"}
        # Random weights foretell nothing: about as many guesses as there are tokens.
        assert all(200 < value < 400 for value in found.perplexity.values())

    def test_what_can_not_be_measured_says_so(self, tmp_path: Path, origin: Path) -> None:
        prepare.prepare("echo", "echo", tmp_path / "echo", silent())
        with pytest.raises(ModelError, match="no weights"):
            measure.measure(tmp_path / "echo", silent())
        with pytest.raises(ModelError, match="windows"):
            measure.measure(origin, silent(), windows=0)


def test_windows_are_spread_over_the_text(origin: Path) -> None:
    manifest, tokenizer = read_manifest(origin), prepare.describe.load_tokenizer(origin)
    whole = perplexity.windows("en", tokenizer, manifest)
    few = perplexity.windows("en", tokenizer, manifest, 3)
    assert len(few) == 3
    assert all(window in whole for window in few)
    assert {len(window) for window in whole[:-1]} == {perplexity.WINDOW}
    text = (perplexity.TEXTS / "en.txt").read_text(encoding="utf-8")
    assert [token for window in whole for token in window] == tokenizer.encode(
        text, add_special_tokens=False
    ).ids
    assert perplexity.windows("en", tokenizer, manifest, len(whole) - 1) == whole[:-1]
    with_bos = manifest.model_copy(update={"add_bos": True})
    assert perplexity.windows("en", tokenizer, with_bos, 1)[0][0] == 256


def test_every_kind_is_read_by_rows() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((50, 64)).astype(np.float32)
    for bits in (8, 4):
        kind, data = quantized(values, bits)
        weight = Packed(KINDS[kind.name], torch.from_numpy(data), 50, 64)
        assert np.array_equal(weight.rows_between(16, 50), unpack(kind, data, 50, 64)[16:])
        assert np.array_equal(weight.rows_between(0, 32), unpack(kind, data, 50, 64)[:32])
