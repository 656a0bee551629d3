"""Which class serves a configuration. A new family is one line here and one file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from inference_workers.errors import ModelError
from inference_workers.layers.attention import kernels_attend
from inference_workers.layers.linear import Matrix, Packed
from inference_workers.models.base import CausalModel, Encoder
from inference_workers.models.bert import Bert
from inference_workers.models.bloom import Bloom
from inference_workers.models.gemma3 import Gemma3
from inference_workers.models.llama import Llama
from inference_workers.models.mistral import Mistral
from inference_workers.models.opt import Opt
from inference_workers.models.qwen import Qwen2, Qwen3

LEAN = (Llama, Mistral, Qwen2, Qwen3, Gemma3, Opt, Bloom)
ENCODERS = (Bert,)
ROW_BY_ROW = (Llama, Mistral, Qwen2, Qwen3, Gemma3)
"""Families that compute, where their weights are packed, with kernels of our own and sums alone:
torch's products and activations may round a row differently beside other rows."""


def is_lean(config: Any) -> bool:
    """Whether a module of our own generates text by this configuration."""
    return any(family.supports(config) for family in LEAN)


def is_ours(config: Any) -> bool:
    """Whether a module of our own serves this configuration, an encoder's too."""
    return is_lean(config) or any(family.supports(config) for family in ENCODERS)


def build(
    config: Any,
    weights: Mapping[str, Matrix],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> CausalModel:
    """The model of a transformers configuration and tensors with Hugging Face's names.

    Raises:
        ModelError: the architecture can't be served, or the weights don't fit the configuration.
    """
    place = torch.device(device)
    with torch.inference_mode():
        for family in LEAN:
            if family.supports(config):
                model = family(config, weights, dtype=dtype, device=place)
                if kernels_attend(model.shape.layers, dtype, place):
                    packed = _packed(weights)
                    model.shape = replace(
                        model.shape,
                        halves_cached=any(packed),
                        deterministic=family in ROW_BY_ROW and bool(packed) and all(packed),
                    )
                return model
        from inference_workers.models.generic import Generic  # the only one that needs transformers

        return Generic(config, weights, dtype=dtype, device=place)


def build_encoder(
    config: Any,
    weights: Mapping[str, Matrix],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Encoder:
    """As ``build``, of a model that makes vectors of texts."""
    with torch.inference_mode():
        for family in ENCODERS:
            if family.supports(config):
                return family(config, weights, dtype=dtype, device=torch.device(device))
    raise ModelError(
        f"It is a {config.model_type} with options that are not computed here. Use an encoder of "
        "BERT's architecture with absolute positions.",
        code="unknown_architecture",
    )


def _packed(weights: Mapping[str, Matrix]) -> list[bool]:
    """Of each matrix, whether it is packed."""
    matrices = (weights[name] for name in weights)
    return [isinstance(matrix, Packed) for matrix in matrices if len(matrix.shape) > 1]
