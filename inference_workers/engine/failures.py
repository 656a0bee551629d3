"""What a request is told that could not be computed even alone."""

from __future__ import annotations

import torch

NOT_FINITE = (
    "The model's output was not a finite number for this request. Send it again; if it fails "
    "again, the weights are damaged or don't suit their number format: prepare the model again."
)


def hopeless(error: Exception) -> bool:
    """Whether the device is lost to this process: the supervisor starts another."""
    return isinstance(error, torch.AcceleratorError) and "memory" not in str(error)


def explained(error: Exception) -> tuple[str, str]:
    """Code and message."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
        return "out_of_memory", (
            "This request alone needs more memory than the worker has left. Shorten the prompt, or "
            "give the worker less cache memory."
        )
    return "internal", f"The engine could not compute this request: {type(error).__name__}: {text}"
