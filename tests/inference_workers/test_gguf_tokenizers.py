"""A GGUF file's vocabulary encodes what the tokenizer that it was taken from encodes."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from inference_workers.errors import ModelError
from inference_workers.models.gguf_tokenizer import build_tokenizer

LETTERS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CORPUS = [
    "The theory of the thing is that they think, and then they don't; the others THEN don't.",
    "In 2026 there were 1,234,567 tokens: 12 345.6 of them (the rest) weren't counted…",
    "近年来，人工智能领域取得了突破性的进展；大型语言模型带来了变革。人工智能",
    "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\n",
    "Ελληνικά, العربية، हिन्दी। 한국어 日本語 ไทย café naïve cafe\u0301",
]
TEXTS = [
    *CORPUS,
    "  two  spaces and\ttabs \n\n\n and more   ",
    " begins with one",
    "don't DON'T we'll I'M x1234567y 1.2.3",
    "🙂👩‍👩‍👧 ￿ \u00a0\u200b\u3000",
    "a,b.c!d?e…f。g，h、i (j) [k] |l|",
    "<s>the</s> <|end|>the<think> th",
    "",
    " ",
]


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), LETTERS])


# As the models' own tokenizer.json files put them.
RULES: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "llama-bpe": lambda: split_by(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": lambda: split_by(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "bloom": lambda: split_by(r" ?[^(\s|[.,!?…。，、।۔،])]+"),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    ),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(False),
}


def trained(rule: str) -> Tokenizer:
    """A byte-level tokenizer as a model's own file would have it."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = RULES[rule]()
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if rule == "llama-bpe":
        # Words that no merges lead to are tokens all the same.
        few = _merges(tokenizer)[:60]
        tokenizer.model = BPE(vocab=tokenizer.get_vocab(), merges=few, ignore_merges=True)
    tokenizer.add_tokens(["<think>"])
    return tokenizer


def metadata_of(tokenizer: Tokenizer, rule: str, **changes: Any) -> dict[str, Any]:
    size = tokenizer.get_vocab_size()
    tokens = [str(tokenizer.id_to_token(index)) for index in range(size)]
    kinds = {"<s>": 3, "</s>": 3, "<|end|>": 3, "<think>": 4}
    described = {
        "ggml.model": "gpt2",
        "ggml.pre": rule,
        "ggml.tokens": tokens,
        "ggml.token_type": [kinds.get(token, 1) for token in tokens],
        "ggml.merges": [" ".join(merge) for merge in _merges(tokenizer)],
        "ggml.bos_token_id": 0,
        **changes,
    }
    return {f"tokenizer.{key}": value for key, value in described.items()}


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    listed = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in listed]


@pytest.mark.parametrize("rule", RULES)
def test_a_byte_level_vocabulary_encodes_as_its_own_tokenizer(rule: str) -> None:
    own = trained(rule)
    found = build_tokenizer("llama", metadata_of(own, rule))
    begins = [0] if rule == "llama-bpe" else []
    for text in TEXTS:
        ids = own.encode(text, add_special_tokens=False).ids
        assert found.encode(text).ids == begins + ids, text
        kept = unicodedata.normalize("NFC", text) if rule == "qwen2" else text
        assert found.decode(ids, skip_special_tokens=False) == kept


def test_the_rules_tell_the_vocabularies_apart() -> None:
    """Otherwise a wrong rule would pass unseen."""
    own = trained("gpt-2")
    answers = {}
    for rule in RULES:
        found = build_tokenizer("llama", metadata_of(own, rule, **{"ggml.add_bos_token": False}))
        answers[rule] = tuple(tuple(found.encode(text).ids) for text in TEXTS)
    assert len(set(answers.values())) == len(RULES)


def test_qwens_vocabulary_encodes_as_transformers_tokenizer() -> None:
    own = trained("qwen2")
    theirs = transformers.Qwen2Tokenizer(
        vocab={k: v for k, v in own.get_vocab().items() if k != "<think>"},
        merges=_merges(own),
        unk_token="<|end|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
    )
    found = build_tokenizer("qwen2", metadata_of(own, "qwen2"))
    for text in TEXTS:
        if "<" not in text:
            assert found.encode(text).ids == theirs(text)["input_ids"], text
            assert found.decode(found.encode(text).ids) == theirs.decode(theirs(text)["input_ids"])


@pytest.fixture(scope="module")
def piece() -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model set up as LLaMA's and Mistral's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=460,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        split_digits=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def described(piece: sentencepiece.SentencePieceProcessor, **changes: Any) -> dict[str, Any]:
    def kind(index: int) -> int:
        if piece.is_unknown(index):
            return 2
        return 3 if piece.is_control(index) else 6 if piece.is_byte(index) else 1

    indices = range(piece.get_piece_size())
    entries = {
        "model": "llama",
        "tokens": [piece.id_to_piece(index) for index in indices],
        "scores": [piece.get_score(index) for index in indices],
        "token_type": [kind(index) for index in indices],
        "bos_token_id": piece.bos_id(),
        "unknown_token_id": piece.unk_id(),
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in entries.items()}


def test_a_sentencepiece_vocabulary_encodes_as_sentencepiece(
    piece: sentencepiece.SentencePieceProcessor,
) -> None:
    found = build_tokenizer("llama", described(piece))
    for text in TEXTS:
        if "<s>" in text or "\u2581" in text:
            continue
        ids = piece.encode(text)
        assert found.encode(text).ids == [piece.bos_id(), *ids], text
        assert found.decode(ids) == piece.decode(ids) == text


def test_its_scores_and_not_its_order_decide_what_is_merged_first(
    piece: sentencepiece.SentencePieceProcessor,
) -> None:
    metadata = described(piece)
    lists = [metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type")]
    plain = [i for i in range(piece.get_piece_size()) if lists[2][i] == 1]
    for values in lists:
        kept = [values[i] for i in plain]
        for at, value in zip(plain, reversed(kept), strict=True):
            values[at] = value
    found = build_tokenizer("llama", metadata)
    for text in CORPUS:
        assert found.encode(text).tokens[1:] == piece.encode(text, out_type=str), text


def test_special_tokens_are_whole_and_spaces_follow_them(
    piece: sentencepiece.SentencePieceProcessor,
) -> None:
    found = build_tokenizer("llama", described(piece))
    assert found.encode("<s>the", add_special_tokens=False).ids == [
        piece.bos_id(),
        *piece.encode("the"),
    ]
    bare = build_tokenizer("llama", described(piece, add_space_prefix=False, add_bos_token=False))
    assert bare.encode(" the").ids == piece.encode("the")
    assert bare.decode(bare.encode(" the").ids) == " the"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ggml.pre": "unheard-of"}, "unheard-of"),
        ({"ggml.pre": None}, "None"),
        ({"ggml.merges": None}, "no merges"),
        ({"ggml.merges": ["t q"] * 2 + ["no such"]}, "contradicts itself"),
        ({"ggml.model": "rwkv"}, "rwkv"),
        ({"ggml.model": "llama"}, "score"),
    ],
)
def test_a_vocabulary_that_would_be_guessed_at_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        build_tokenizer("llama", metadata_of(trained("qwen2"), "qwen2", **changes))
    assert caught.value.code == "unsupported_tokenizer"
    assert "safetensors" in caught.value.message
