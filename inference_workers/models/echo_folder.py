"""The echo model's folder: a tokenizer whose ids are bytes, and no weights.

It lets portal, queue and page run and be tested without torch. Every character beyond ASCII is
several tokens, so that whatever splits characters shows at once.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from inference_workers.models.manifest import Manifest, covered_files, digest_of

CONTEXT_LENGTH = 8192
BOS, EOS = 256, 257


def byte_tokenizer() -> Tokenizer:
    """Token ``b`` is the byte ``b``; 256 is ``<s>``, 257 is ``</s>``. Neither is added."""
    spelled = _byte_letters()
    tokenizer = Tokenizer(BPE(vocab={letter: byte for byte, letter in spelled.items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<s>", special=True), AddedToken("</s>", special=True)]
    )
    return tokenizer


def _byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest follow from 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + index) for index, byte in enumerate(others)}


def write_echo(folder: Path, *, model_id: str, source: str) -> Manifest:
    """Write config and tokenizer into ``folder`` and describe them."""
    config = {
        "architectures": ["EchoForCausalLM"],
        "model_type": "echo",
        "max_position_embeddings": CONTEXT_LENGTH,
        "vocab_size": EOS + 1,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    byte_tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
    covered = covered_files(folder)
    return Manifest(
        id=model_id,
        source=source,
        digest=digest_of(covered),
        format="none",
        family="echo",
        architecture="EchoForCausalLM",
        parameters=0,
        context_length=CONTEXT_LENGTH,
        vocab_size=EOS + 1,
        bos_token_id=BOS,
        add_bos=False,
        eos_token_ids=(EOS,),
        bytes=sum(path.stat().st_size for path in covered),
        prepared_at=time.time(),
    )
