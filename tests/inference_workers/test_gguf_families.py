"""Every family's GGUF files become the checkpoints that they were made from, and answer alike."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFWriter

from inference_workers.errors import ModelError
from inference_workers.layers.linear import Packed
from inference_workers.models import registry
from inference_workers.models.gguf import convert
from inference_workers.models.loader import WeightReader, library_config
from inference_workers.models.report import silent
from tests.inference_workers.checkpoints import job, prompts, reference, run, serving, tokens
from tests.inference_workers.gguf_files import K_FACTORS, llama3_divisors, write_gguf

CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
NAMES = [
    "llama",
    "llama-biased-llama3",
    "llama-linear",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-biased-yarn",
    "bloom",
    "bloom-6-heads",
]


def checkpoint(name: str) -> Any:
    """transformers' module with weights that bfloat16 holds."""
    module = copy.deepcopy(reference(name))
    if "llama3" in name:
        config = module.config.__class__(**{**module.config.to_dict(), "rope_parameters": LLAMA3})
        changed = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        changed.load_state_dict(module.state_dict())
        module = changed
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(weight.bfloat16())
    return module


def converted(path: Path, out: Path) -> Path:
    out.mkdir()
    convert(path, out, silent())
    return out


def dense(tensor: Any) -> torch.Tensor:
    return tensor.dense(torch.float32, CPU) if isinstance(tensor, Packed) else tensor.float()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_becomes_the_checkpoint_that_it_was_made_from(name: str, tmp_path: Path) -> None:
    module = checkpoint(name)
    out = converted(write_gguf(tmp_path / "small.gguf", module), tmp_path / "out")
    config = library_config(out, name)
    rope = getattr(module.config, "rope_parameters", None)
    assert getattr(config, "rope_parameters", None) == rope
    state = {k: v for k, v in module.state_dict().items() if k != "lm_head.weight"}
    with WeightReader(out) as weights:
        assert set(state) <= set(weights) <= set(module.state_dict())
        for key, tensor in weights.items():
            assert torch.equal(dense(tensor), module.state_dict()[key]), key
        served = registry.build(config, weights, dtype=torch.float32)
    assert type(served).__name__ != "Generic"
    chosen = prompts(3)
    found = run(serving(served), [job(str(i), prompt) for i, prompt in enumerate(chosen)])
    for i, prompt in enumerate(chosen):
        answer = module.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=-1
        )
        assert tokens(found[str(i)]) == tuple(answer[0, len(prompt) :].tolist())


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_0", "Q5_1"])
def test_older_kinds_equal_transformers_reading(kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "small.gguf", checkpoint("llama-linear"), kind=kind)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    ).state_dict()
    with WeightReader(converted(path, tmp_path / "out")) as ours:
        for key, tensor in ours.items():
            assert torch.equal(dense(tensor), theirs[key]), key


@functools.cache
def wide(name: str) -> Any:
    """A checkpoint whose rows are as long as a K-quant's block."""
    small = reference(name).config
    changes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    if name == "bloom":
        changes = {"hidden_size": 256}
    elif name == "gemma3":
        changes |= {"layer_types": ["sliding_attention"] * small.num_hidden_layers}
        changes |= {"query_pre_attn_scalar": 64}
    config = small.__class__(**{**small.to_dict(), **changes})
    torch.manual_seed(5)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16", "BF16", *K_FACTORS])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma3", "bloom"])
def test_each_family_is_read_in_each_kind_and_answers_as_its_values_do(
    name: str, kind: str, tmp_path: Path
) -> None:
    module = wide(name)
    path = write_gguf(tmp_path / "small.gguf", module, kind=kind)
    # Their reader overlooks how wide Qwen 3's heads are, and how Gemma 3 scales its queries.
    config = module.config if name in ("qwen3", "gemma3") else None
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, config=config, dtype=torch.float32
    )
    truth = theirs.state_dict()
    out = converted(path, tmp_path / "out")
    with WeightReader(out) as ours:
        assert set(truth) - {"lm_head.weight"} <= set(ours) <= set(truth)
        packed = [key for key, tensor in ours.items() if isinstance(tensor, Packed)]
        assert bool(packed) == ("16" not in kind)
        for key, tensor in ours.items():
            # A K-quant's scale is a product that float16 rounds; so is its minimum. What has no
            # blocks is stored as bfloat16.
            rough = 2**-10 if kind in K_FACTORS else 2**-8 if kind == "F16" else 0
            allowed = rough * float(truth[key].abs().max())
            assert float((dense(tensor) - truth[key]).abs().max()) <= allowed, key
        served = registry.build(library_config(out, name), ours, dtype=torch.float32)
    assert type(served).__name__ != "Generic"
    prompt = prompts(1, seed=3)[0]
    scored = run(serving(served), [job("0", prompt, prompt_logprobs=0)])["0"][0].prompt_logprobs
    with torch.inference_mode():
        wanted = theirs(torch.tensor([prompt])).logits[0].log_softmax(-1)
    errors = [
        score.logprob - float(wanted[position, prompt[position + 1]])
        for position, score in enumerate(scored)
    ]
    # Activations have 8 bits where weights are packed, and attention on random blocks is so sharp
    # that some positions look elsewhere.
    assert np.median(np.abs(errors)) < 0.1 * max(1.0, float(wanted.std()))


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    module = checkpoint("qwen2")
    assert not module.config.tie_word_embeddings
    out = converted(write_gguf(tmp_path / "small.gguf", module), tmp_path / "out")
    assert not library_config(out, "small").tie_word_embeddings
    with WeightReader(out) as weights:
        assert torch.equal(dense(weights["lm_head.weight"]), module.lm_head.weight)


def refused(tmp_path: Path, change: Any, architecture: str = "llama") -> ModelError:
    """What is said of a file with little more than a shape and what ``change`` adds."""
    writer = GGUFWriter(tmp_path / "odd.gguf", architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_token_list(["a"])
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((32, 32), np.float32))
    change(writer)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    with pytest.raises(ModelError) as caught:
        converted(tmp_path / "odd.gguf", tmp_path / "out")
    assert "odd.gguf" in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.add_rope_dimension_count(8),
        lambda w: w.add_string("llama.rope.scaling.type", "longrope"),
        lambda w: w.add_float32("llama.rope.scaling.attn_factor", 0.5),
        lambda w: w.add_tensor("rope_freqs.weight", np.linspace(1, 8, 8, dtype=np.float32)),
        lambda w: w.add_tensor("rope_freqs.weight", llama3_divisors(LLAMA3, 32)),
    ],
)
def test_a_rotary_scaling_that_is_not_understood_is_refused(change: Any, tmp_path: Path) -> None:
    error = refused(tmp_path, change)
    assert error.code == "unsupported_rope"
    assert "safetensors" in error.message


def test_biases_on_some_projections_alone_are_refused(tmp_path: Path) -> None:
    bias = np.zeros(32, np.float32)
    error = refused(tmp_path, lambda w: w.add_tensor("blk.0.attn_q.bias", bias))
    assert error.code == "unsupported_tensor"


def test_experts_are_refused_by_name(tmp_path: Path) -> None:
    experts = np.zeros((2, 32, 32), np.float32)
    error = refused(tmp_path, lambda w: w.add_tensor("blk.0.ffn_up_exps.weight", experts))
    assert error.code == "unsupported_tensor"
    assert "ffn_up_exps" in error.message
