"""A GGUF file becomes the same model and tokenizer that transformers makes of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference_workers.errors import ModelError
from inference_workers.layers.linear import Packed
from inference_workers.layers.packing import unpack
from inference_workers.models.gguf import convert
from inference_workers.models.gguf_blocks import packed, packed_kind
from inference_workers.models.gguf_file import GgufFile
from inference_workers.models.gguf_tokenizer import build_tokenizer
from inference_workers.models.loader import WeightReader
from inference_workers.models.report import silent
from inference_workers.models.safetensors_file import read_header, to_bf16
from tests.inference_workers.model_files import write_gemma_gguf

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf")


def converted(path: Path, out: Path) -> Path:
    out.mkdir()
    convert(path, out, silent())
    return out


def test_its_weights_equal_transformers_reading(gguf_path: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(
        gguf_path.parent, gguf_file=gguf_path.name, dtype=torch.float32
    ).state_dict()
    with WeightReader(converted(gguf_path, tmp_path / "out")) as ours:
        assert set(ours) == set(reference) - {"lm_head.weight"}
        for name, tensor in ours.items():
            same = tensor.dense(torch.float32, CPU) if isinstance(tensor, Packed) else tensor
            assert torch.equal(same, reference[name]), name


def test_matrices_without_blocks_become_bfloat16(tmp_path: Path) -> None:
    path = write_gemma_gguf(tmp_path / "small.gguf", kind="F32")
    with GgufFile(path) as file, WeightReader(converted(path, tmp_path / "out")) as ours:
        matrix = ours["model.layers.0.mlp.gate_proj.weight"]
        norm = ours["model.norm.weight"]
        values = np.concatenate(list(file.rows(file.tensors["blk.0.ffn_gate.weight"])))
        assert isinstance(matrix, torch.Tensor)
        assert isinstance(norm, torch.Tensor)
        assert torch.equal(matrix, torch.from_numpy(values).bfloat16())
        assert norm.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        *(("Q4_0", True), ("Q4_1", True), ("Q5_0", True), ("Q5_1", True), ("Q8_0", True)),
        *(("Q4_K", False), ("Q5_K", False), ("Q6_K", False)),
    ],
)
def test_blocks_are_packed_without_being_quantised_again(name: str, exact: bool) -> None:
    quantised = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[quantised]
    draw = np.random.default_rng(5)
    raw = draw.integers(0, 256, (40, size), dtype=np.uint8)
    for at in {"Q6_K": (208,), "Q4_0": (0,), "Q5_0": (0,), "Q8_0": (0,)}.get(name, (0, 2)):
        factors = draw.uniform(0.001, 0.1, (40, 1)).astype(np.float16)
        raw[:, at : at + 2] = factors.view(np.uint8)
    raw = raw.reshape(20, -1)
    kind = packed_kind(name)
    assert kind is not None
    found = unpack(kind, packed(name, raw), 20, 2 * block)
    truth = dequantize(raw, quantised)
    # A K-quant's scale is a product that float16 rounds; so is its minimum.
    assert np.abs(found - truth).max() <= (0 if exact else 2**-10 * np.abs(truth).max())


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q5_0", "Q8_0"])
def test_each_storage_type_is_dequantised(kind: str, tmp_path: Path) -> None:
    path = write_gemma_gguf(tmp_path / "small.gguf", kind=kind)
    independent = {t.name: t for t in GGUFReader(path).tensors}
    with GgufFile(path) as file:
        assert set(file.tensors) == set(independent)
        for name, tensor in file.tensors.items():
            theirs = dequantize(independent[name].data, independent[name].tensor_type)
            np.testing.assert_array_equal(np.concatenate(list(file.rows(tensor))), theirs)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_are_read_in_pieces_as_in_one(kind: str, tmp_path: Path) -> None:
    """The pieces that are read depend on the file alone, so random blocks will do."""
    from gguf import GGUFWriter

    from inference_workers.models import gguf_file

    quantised = GGMLQuantizationType[kind]
    block, block_bytes = GGML_QUANT_SIZES[quantised]
    draw = np.random.default_rng(1)
    raw = draw.integers(0, 60, (12, 2 * block_bytes), dtype=np.uint8)
    writer = GGUFWriter(tmp_path / "k.gguf", "gemma3")
    writer.add_tensor("token_embd.weight", raw, raw_dtype=quantised)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    whole = dequantize(raw, quantised)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_file, "_CHUNK_VALUES", 2 * block * 5)
        with GgufFile(tmp_path / "k.gguf") as file:
            pieces = list(file.rows(file.tensors["token_embd.weight"]))
    assert [len(p) for p in pieces] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_it_rounds_to_bfloat16_as_torch_does() -> None:
    draw = np.random.default_rng(3)
    bits = draw.integers(0, 2**32, 100_000, dtype=np.uint32)
    bits[::2] = (bits[::2] & 0xFFFF0000) | 0x8000  # half-way between two
    values = bits.view(np.float32)
    ours = torch.from_numpy(to_bf16(values).view(np.int16)).view(torch.bfloat16)
    theirs = torch.from_numpy(values).bfloat16()
    same = (ours.view(torch.int16) == theirs.view(torch.int16)) | (ours.isnan() & theirs.isnan())
    assert bool(same.all())


def test_its_config_builds_the_model(gguf_path: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    out = converted(gguf_path, tmp_path / "out")
    config = AutoConfig.from_pretrained(out)
    reference = AutoConfig.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    ours, theirs = config.to_dict(), reference.to_dict()
    for key in ("rope_parameters", "layer_types", "sliding_window", "num_key_value_heads"):
        assert ours[key] == theirs[key]
    # transformers leaves its default here; llama.cpp divides by the root of the head's width.
    assert config.query_pre_attn_scalar == config.head_dim == 32
    assert config.architectures == ["Gemma3ForCausalLM"]
    assert (config.bos_token_id, config.eos_token_id) == (2, 1)


def test_its_tokenizer_equals_transformers_conversion(gguf_path: Path) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    with GgufFile(gguf_path) as file:
        ours = build_tokenizer("gemma3", file.metadata)
    theirs = json.loads(reference.backend_tokenizer.to_str())
    assert json.loads(ours.to_str())["model"] == theirs["model"]
    texts = ["the  end", " the\n\nand", "你好, <bos>the", "🙂 an  in   ", "", " ", "<mask>edge"]
    for text in texts:
        assert ours.encode(text).ids == reference(text)["input_ids"], text


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="the andi\n你好🙂<>bos  ", max_size=40))
def test_what_it_encodes_it_decodes(text: str, gguf_path: Path) -> None:
    with GgufFile(gguf_path) as file:
        tokenizer: Tokenizer = build_tokenizer("gemma3", file.metadata)
    if "<bos>" in text or "\u2581" in text:
        return
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_a_missing_layer_is_refused(tmp_path: Path) -> None:
    path = write_gemma_gguf(tmp_path / "small.gguf", skip="blk.1.")
    with pytest.raises(ModelError, match="incomplete"):
        converted(path, tmp_path / "out")


@pytest.mark.parametrize("part", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_a_file_cut_off_anywhere_is_refused(part: float, gguf_path: Path, tmp_path: Path) -> None:
    whole = gguf_path.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ModelError) as caught:
        GgufFile(tmp_path / "cut.gguf")
    assert caught.value.code in {"corrupt", "truncated"}
    assert "cut.gguf" in caught.value.message


@settings(max_examples=80, deadline=None)
@given(position=st.integers(0, 12_000), value=st.integers(0, 255))
def test_a_changed_byte_ends_in_a_model_or_in_a_clear_error(
    position: int, value: int, gguf_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(gguf_path.read_bytes())
    data[position] = value
    folder = tmp_path_factory.mktemp("changed")
    (folder / "changed.gguf").write_bytes(data)
    with contextlib.suppress(ModelError):
        converted(folder / "changed.gguf", folder / "out")


def test_an_unknown_architecture_names_what_is_known(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "odd.gguf", "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="gemma3, llama") as caught:
        converted(tmp_path / "odd.gguf", tmp_path / "out")
    assert caught.value.code == "unknown_architecture"


def test_weights_packed_in_another_order_are_refused(gguf_path: Path, tmp_path: Path) -> None:
    path = converted(gguf_path, tmp_path / "out") / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"packed_layout":"2"', b'"packed_layout":"1"'))
    with pytest.raises(ModelError, match="Prepare the model again") as caught:
        read_header(path)
    assert caught.value.code == "old_layout"
