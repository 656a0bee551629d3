"""A small random BERT with a tokenizer of letters, as a source and as a prepared folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing

SIZE, INNER, HEADS, LAYERS, POSITIONS, LONGEST = 32, 64, 4, 2, 96, 64
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = len(SPECIAL) + 2 * len(LETTERS)
CLS, SEP = 2, 3


def letters() -> Tokenizer:
    """Every letter is a token, and a text stands between [CLS] and [SEP]. Like the real ones it
    comes with truncation and padding switched on."""
    words = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


def config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": SIZE,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "vocab_size": VOCABULARY,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    } | changes


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)

    def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (SIZE,), f"{name}.bias": (SIZE,)}

    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, SIZE),
        "embeddings.position_embeddings.weight": (POSITIONS, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm("embeddings.LayerNorm"),
        **linear("pooler.dense", SIZE, SIZE),
    }
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            shapes |= linear(f"{at}attention.self.{part}", SIZE, SIZE)
        shapes |= linear(f"{at}attention.output.dense", SIZE, SIZE)
        shapes |= norm(f"{at}attention.output.LayerNorm") | norm(f"{at}output.LayerNorm")
        shapes |= linear(f"{at}intermediate.dense", INNER, SIZE)
        shapes |= linear(f"{at}output.dense", SIZE, INNER)
    found = {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in found:
        if name.endswith("LayerNorm.weight"):
            found[name] += 1
    return found


def write_bert(
    folder: Path,
    *,
    pooling: str | None = "mean_tokens",
    longest: int | None = LONGEST,
    **changes: Any,
) -> Path:
    """A source as Sentence-BERT's makers publish theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    letters().save(str(folder / "tokenizer.json"))
    save_file(tensors(), folder / "model.safetensors")
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        said = {"word_embedding_dimension": SIZE, f"pooling_mode_{pooling}": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    if longest is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    return folder


def prepared_bert(folder: Path, model_id: str) -> Any:
    """The prepared folder's manifest."""
    from inference_workers.models.prepare import prepare
    from inference_workers.models.report import silent

    origin = write_bert(folder.with_name(f"{folder.name}-origin"))
    return prepare(str(origin), model_id, folder, silent())
