"""Mistral (arXiv 2310.06825): LLaMA through a sliding window, and never with biases."""

from __future__ import annotations

from typing import Any

from inference_workers.models.llama import LayerOptions, Llama


class Mistral(Llama):
    """One window for all layers, or none (from version 0.2 on)."""

    model_type = "mistral"

    @classmethod
    def options(cls, config: Any, layer: int) -> LayerOptions:
        return LayerOptions(window=config.sliding_window)
