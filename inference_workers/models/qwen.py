"""Qwen 2 (arXiv 2407.10671) and Qwen 3 (2505.09388): LLaMA with a few options of its own."""

from __future__ import annotations

from typing import Any

from inference_workers.layers.batch import Window
from inference_workers.models.llama import LayerOptions, Llama

_WINDOWED, _FULL = "sliding_attention", "full_attention"


class Qwen2(Llama):
    """Biases on queries, keys and values alone; some layers may be windowed."""

    model_type = "qwen2"

    @classmethod
    def supports(cls, config: Any) -> bool:
        if not super().supports(config):
            return False
        return set(config.layer_types) <= {_FULL, _WINDOWED if config.sliding_window else _FULL}

    @classmethod
    def options(cls, config: Any, layer: int) -> LayerOptions:
        return LayerOptions(qkv_bias=True, window=_window(config, layer))


class Qwen3(Qwen2):
    """Normalised queries and keys take the place of their biases."""

    model_type = "qwen3"

    @classmethod
    def options(cls, config: Any, layer: int) -> LayerOptions:
        biased = bool(config.attention_bias)
        window = _window(config, layer)
        return LayerOptions(qkv_bias=biased, out_bias=biased, normed_heads=True, window=window)


def _window(config: Any, layer: int) -> Window:
    window: Window = config.sliding_window
    return window if config.layer_types[layer] == _WINDOWED else None
