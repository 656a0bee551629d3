"""A small random LLaMA in float32 as a prepared folder, for faults under the torch engine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_workers.contract import Job
from inference_workers.engine.counter import uniform
from inference_workers.models.echo_folder import BOS, EOS, byte_tokenizer
from inference_workers.models.manifest import Manifest
from inference_workers.models.prepare import prepare
from inference_workers.models.report import silent


def small_llama(folder: Path, model_id: str) -> Manifest:
    """Two layers over bytes, its weights spread enough that answers vary."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=EOS + 1,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    module = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.06 if "embed" in name else 0.3)
    origin = folder.with_name(f"{folder.name}-origin")
    module.save_pretrained(origin)
    byte_tokenizer().save(str(origin / "tokenizer.json"))
    return prepare(str(origin), model_id, folder, silent())


ROUNDING = 1e-5
"""How far float32 logits of this model move with the rows that are computed beside them."""


def explains(model: Path, job: Job, tokens: Sequence[int]) -> bool:
    """Whether the model says each of ``tokens`` after those before it, but for ``ROUNDING``.

    transformers computes them all at once in float64. Where two tokens lie closer together than
    float32 can tell, other rows in the batch may decide; this tells such a case from a lost, stale
    or repeated token, after which nothing fits.
    """
    import torch

    ids = torch.tensor([[*job.input_ids, *tokens]])
    with torch.no_grad():
        logits = _reference(model)(ids).logits[0, len(job.input_ids) - 1 : -1]
    said = torch.tensor(tokens)
    own = logits.gather(1, said[:, None])[:, 0]
    if not job.sampling.temperature:
        return bool((logits.amax(1) - own < ROUNDING * logits.abs().amax(1)).all())
    ends = torch.softmax(logits / job.sampling.temperature, 1).cumsum(1)
    draws = torch.tensor([uniform(job.seed, 0, i) for i in range(len(tokens))]).double()
    last = ends.gather(1, said[:, None])[:, 0]
    first = torch.where(said > 0, ends.gather(1, (said - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    return bool(((draws > first - ROUNDING) & (draws < last + ROUNDING)).all())


@functools.cache
def _reference(model: Path) -> Any:
    import torch
    import transformers

    origin = model.with_name(f"{model.name}-origin")
    return transformers.LlamaForCausalLM.from_pretrained(origin, dtype=torch.float64).eval()
