"""A ``tokenizers`` tokenizer from what a GGUF file says about its vocabulary.

Gemma's is built here, in a few seconds: transformers sorts half a million merges that this code
meets in their right order. Every other vocabulary goes through transformers' own conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from inference_workers.errors import ModelError

CONTROL, USER_DEFINED = 3, 4
SPACE = "\u2581"


def build_tokenizer(architecture: str, metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the file's vocabulary describes, adding BOS where the file says so.

    Raises:
        ModelError: the vocabulary is missing, contradicts itself, or is of an unknown kind.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise ModelError(
            "The GGUF file has no vocabulary. Use a file that carries its tokenizer.",
            code="missing_tokenizer",
        )
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "llama" and architecture.startswith("gemma"):
        tokenizer = gemma_tokenizer(tokens, metadata)
    else:
        tokenizer = _library_tokenizer(architecture, metadata)
    if tokenizer.get_vocab_size(with_added_tokens=True) > len(tokens):
        raise ModelError(
            "The GGUF file's vocabulary names a token twice. Use another file of the same model.",
            code="corrupt",
        )
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    if bos is not None and metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"):
        text = tokenizer.id_to_token(int(bos))
        if text is None:
            raise ModelError(f"The GGUF file's BOS token {bos} is not in its vocabulary.")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{text} $A", pair=f"{text} $A {text}:1 $B:1", special_tokens=[(text, int(bos))]
        )
    return tokenizer


def gemma_tokenizer(tokens: Sequence[str], metadata: Mapping[str, Any]) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as ``GemmaTokenizer`` sets it up.

    The file stores runs of spaces as real spaces and lists no merges; both are put right here.
    Gemma's scores do not follow its merge order: the order of the tokens does.
    """
    spelled = [SPACE * len(t) if " " in t and not t.strip(" ") else t for t in tokens]
    vocab = {token: index for index, token in enumerate(spelled)}
    unknown = int(metadata.get("tokenizer.ggml.unknown_token_id", 3))
    tokenizer = Tokenizer(
        BPE(
            vocab=vocab,
            merges=implied_merges(spelled, vocab),
            unk_token=spelled[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    # A run of spaces is not listed as an added token: those are matched before spaces become "▁".
    named = [(t, kind) for t, kind in zip(tokens, types, strict=False) if t in vocab]
    tokenizer.add_special_tokens([_added(t, True) for t, kind in named if kind == CONTROL])
    tokenizer.add_tokens([_added(t, False) for t, kind in named if kind == USER_DEFINED])
    return tokenizer


def implied_merges(tokens: Sequence[str], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to cut a token into two others, earlier tokens first, longer left parts first."""
    return [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in vocab and token[cut:] in vocab
    ]


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, normalized=False, special=special)


def _library_tokenizer(architecture: str, metadata: Mapping[str, Any]) -> Tokenizer:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_TOKENIZER_MAPPING,
        convert_gguf_tokenizer,
    )

    described = {
        name: metadata[f"tokenizer.{key}"]
        for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if f"tokenizer.{key}" in metadata
    }
    try:
        tokenizer, _ = convert_gguf_tokenizer(architecture, described)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(
            f"The GGUF file's tokenizer can't be converted ({error}). Use the model's safetensors "
            "checkpoint instead.",
            code="unsupported_tokenizer",
        ) from error
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer
