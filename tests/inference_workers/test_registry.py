"""Which class serves a configuration, and what becomes of weights that don't fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from inference_workers.errors import ModelError
from inference_workers.models import registry
from tests.inference_workers.checkpoints import (
    expected,
    job,
    model,
    prompts,
    reference,
    run,
    serving,
    tokens,
)


def build(name: str, change: Any = None) -> Any:
    module = reference(name)
    weights = dict(module.state_dict())
    if change is not None:
        weights = change(weights)
    return registry.build(module.config, weights, dtype=torch.float32)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3", "opt", "bloom", "gpt2"])
def test_a_missing_tensor_is_named(name: str) -> None:
    victim = next(k for k in reference(name).state_dict() if ".1." in k and k.endswith("weight"))
    with pytest.raises(ModelError, match=victim.replace(".", r"\.")):
        build(name, lambda weights: {k: v for k, v in weights.items() if k != victim})


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3", "opt", "bloom", "gpt2"])
def test_a_tensor_of_another_shape_is_named(name: str) -> None:
    victim = next(k for k in reference(name).state_dict() if ".1." in k and k.endswith("weight"))

    def cut(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**weights, victim: weights[victim][:-1]}

    with pytest.raises(ModelError, match=victim.replace(".", r"\.")):
        build(name, cut)


def test_a_model_without_a_key_value_cache_is_refused_with_the_remedy() -> None:
    config = transformers.MambaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4
    )
    module = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="decoder-only transformer"):
        registry.build(config, module.state_dict(), dtype=torch.float32)


def test_a_model_that_does_not_generate_is_refused() -> None:
    config = transformers.CLIPConfig()
    with pytest.raises(ModelError, match="clip"):
        registry.build(config, {}, dtype=torch.float32)


def test_a_rotary_scaling_unknown_to_the_lean_module_goes_to_the_generic_one() -> None:
    config = reference("llama").config.__class__(
        **{
            **reference("llama").config.to_dict(),
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 128,
            },
        }
    )
    served = registry.build(config, reference("llama").state_dict(), dtype=torch.float32)
    assert type(served).__name__ == "Generic"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama", {"hidden_act": "gelu"}),
        ("mistral", {"hidden_act": "gelu"}),
        ("opt", {"activation_function": "tanh"}),
        ("bloom", {"slow_but_exact": True}),
    ],
)
def test_an_option_unknown_to_the_lean_module_goes_to_the_generic_one(
    name: str, change: dict[str, Any]
) -> None:
    config = reference(name).config
    config = config.__class__(**{**config.to_dict(), **change})
    served = registry.build(config, reference(name).state_dict(), dtype=torch.float32)
    assert type(served).__name__ == "Generic"


@pytest.mark.parametrize("name", ["gpt2", "bloom"])
def test_checkpoints_without_the_modules_prefix_load(name: str) -> None:
    def bare(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kept = {k: v for k, v in weights.items() if not k.startswith("lm_head")}
        return {k.removeprefix("transformer."): v for k, v in kept.items()}

    prompt = prompts(2)[1]
    found = run(serving(build(name, bare)), [job("job", prompt)])["job"]
    assert tokens(found) == expected(name, prompt)


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "opt", "opt-350m", "bloom", "gpt2"])
def test_bytes_count_what_is_held(name: str) -> None:
    assert model(name).shape.bytes == sum(p.numel() * 4 for p in reference(name).parameters())
