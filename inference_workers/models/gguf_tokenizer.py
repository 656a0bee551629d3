"""A ``tokenizers`` tokenizer from what a GGUF file says about its vocabulary.

Three kinds: SentencePiece as Gemma sets it up, SentencePiece as LLaMA does, and byte-level BPE. A
file of the last kind only names the rule by which it cuts text into words; an unknown name is
refused, since any other rule would give other tokens without a word of warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE

from inference_workers.errors import ModelError

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SPACE = "\u2581"
BLOOM_SPLIT = r" ?[^(\s|.,!?…。，、।۔،)]+"
"""BLOOM's rule, which transformers' own table of splits lacks."""
WHOLE_WORDS = {"llama3", "llama-v3", "llama-bpe", "tekken"}
"""Vocabularies in which a word that is a token needs no merges; they also begin with BOS."""


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
    elif kind == "llama":
        tokenizer = llama_tokenizer(tokens, metadata)
    elif kind == "gpt2":
        tokenizer = byte_level_tokenizer(tokens, metadata)
    else:
        raise _unsupported(f"is of the kind {kind!r}; llama and gpt2 are known")
    if tokenizer.get_vocab_size(with_added_tokens=True) > len(tokens):
        raise ModelError(
            "The GGUF file's vocabulary names a token twice. Use another file of the same model.",
            code="corrupt",
        )
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    begins = kind == "llama" or metadata.get("tokenizer.ggml.pre") in WHOLE_WORDS
    if bos is not None and metadata.get("tokenizer.ggml.add_bos_token", begins):
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
    # A run of spaces is not listed as an added token: those are matched before spaces become "▁".
    _add_tokens(tokenizer, [(t, kind) for t, kind in _typed(tokens, metadata) if t in vocab])
    return tokenizer


def llama_tokenizer(tokens: Sequence[str], metadata: Mapping[str, Any]) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as LLaMA 1 and 2 and Mistral set it up.

    Merges are not listed: a pair is merged into the token with the best score first. A space stands
    before the text and after each special token, where the file doesn't say otherwise.
    """
    typed, scores = _typed(tokens, metadata), metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise _unsupported("has no score for each token")
    vocab = {token: index for index, token in enumerate(tokens)}
    mergeable = [
        (score, token)
        for score, (token, kind) in zip(scores, typed, strict=True)
        if kind in (NORMAL, USER_DEFINED)
    ]
    ranked = [token for _, token in sorted(mergeable, key=lambda pair: pair[0], reverse=True)]
    tokenizer = Tokenizer(
        BPE(
            vocab=vocab,
            merges=implied_merges(ranked, vocab),
            unk_token=tokens[int(metadata.get("tokenizer.ggml.unknown_token_id", 0))],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", SPACE)
    joined = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.normalizer = spaces
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces])
        joined.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(joined)
    _add_tokens(tokenizer, typed)
    return tokenizer


def byte_level_tokenizer(tokens: Sequence[str], metadata: Mapping[str, Any]) -> Tokenizer:
    """BPE over bytes spelled as letters, as GPT-2 set it up; the file lists its merges."""
    rule, listed = metadata.get("tokenizer.ggml.pre"), metadata.get("tokenizer.ggml.merges")
    split = _splitting(str(rule))
    if split is None:
        raise _unsupported(f"cuts text into words by the rule {rule!r}, which is not known")
    if not isinstance(listed, list) or not all(isinstance(merge, str) for merge in listed):
        raise _unsupported("lists no merges")
    merges = []
    for merge in listed:
        left, _, right = merge.partition(" ")
        merges.append((left, right))
    vocab = {token: index for index, token in enumerate(tokens)}
    try:
        model = BPE(vocab=vocab, merges=merges, ignore_merges=rule in WHOLE_WORDS)
    except Exception as error:  # the library raises bare Exception for whatever is wrong
        raise _unsupported(f"contradicts itself ({error})") from error
    tokenizer = Tokenizer(model)
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(tokenizer, _typed(tokens, metadata))
    return tokenizer


def _splitting(rule: str) -> pre_tokenizers.PreTokenizer | None:
    """How llama.cpp's rule of that name cuts text into words, and bytes into letters."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule == "gpt-2":
        return words
    if rule == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    pattern = BLOOM_SPLIT if rule == "bloom" else GGUF_PRE_TOKENIZER_SPLITS.get(rule)
    if pattern is None:
        return None
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), letters])


def _typed(tokens: Sequence[str], metadata: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Each token and its type; a file without types has ordinary tokens only."""
    types = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    return list(zip(tokens, types, strict=True))


def _add_tokens(tokenizer: Tokenizer, typed: Sequence[tuple[str, int]]) -> None:
    """Tokens that are matched whole in a text, special ones and others."""
    tokenizer.add_special_tokens([_added(t, True) for t, kind in typed if kind == CONTROL])
    tokenizer.add_tokens([_added(t, False) for t, kind in typed if kind == USER_DEFINED])


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


def _unsupported(why: str) -> ModelError:
    return ModelError(
        f"The GGUF file's vocabulary {why}. Use the model's safetensors checkpoint instead.",
        code="unsupported_tokenizer",
    )
