"""A small random LLaMA in float32 as a prepared folder, for faults under the torch engine."""

from __future__ import annotations

from pathlib import Path

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
