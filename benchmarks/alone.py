"""The engine by itself, in a process of its own: what the way through the portal is held against.

Loaded once by ``load`` in a worker process of the benchmark; then ``decode`` and ``first_token``
measure. Kernels, weights, slots and threads are those of ``python -m inference_workers serve``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from inference_workers.contract import Delta, Job, Sampling

_state: dict[str, Any] = {}


def load(folder: Path, threads: int, slots: int) -> None:
    """Make the engine of this process."""
    import torch
    from tokenizers import Tokenizer

    from inference_workers.engine.engine import DEFAULT_KV_MEMORY, TorchEngine
    from inference_workers.models.loader import load as load_model
    from inference_workers.models.manifest import read_manifest

    torch.set_num_threads(threads)
    manifest = read_manifest(folder)
    model, _ = load_model(folder, device="cpu")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _state["encode"] = lambda text: tuple(tokenizer.encode(text).ids)
    _state["engine"] = TorchEngine(
        model,
        tokenizer,
        eos_token_ids=manifest.eos_token_ids,
        slots=slots,
        kv_memory=DEFAULT_KV_MEMORY,
        digest=manifest.digest,
        context_length=manifest.context_length,
    )


def _add(prompts: list[str], tokens: int) -> None:
    for prompt in prompts:
        _state["number"] = _state.get("number", 0) + 1
        _state["engine"].add(
            Job(
                id=str(_state["number"]),
                team="bench",
                source="bench",
                model="bench",
                model_digest="",
                input_ids=_state["encode"](prompt),
                sampling=Sampling(max_tokens=tokens, temperature=0, ignore_eos=True),
                seed=1,
            )
        )


def decode(prompts: list[str], tokens: int) -> float:
    """Tokens per second from handing the requests over to the last token, prefill included."""
    engine = _state["engine"]
    began, made = time.perf_counter(), 0
    _add(prompts, tokens)
    while engine.busy:
        made += sum(len(e.token_ids) for _, e in engine.step() if isinstance(e, Delta))
    return made / (time.perf_counter() - began)


def first_token(prompt: str) -> float:
    """Seconds from handing one request over to its first token."""
    engine = _state["engine"]
    began, seen = time.perf_counter(), 0.0
    _add([prompt], 4)
    while engine.busy:
        if any(isinstance(event, Delta) for _, event in engine.step()) and not seen:
            seen = time.perf_counter() - began
    return seen
