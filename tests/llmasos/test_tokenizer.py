"""Text to ids and back, exactly, or a clear refusal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from inference_workers.models.gguf_tokenizer import gemma_tokenizer
from inference_workers.models.prepare import prepare
from inference_workers.models.report import silent
from llmasos.errors import TokenizerError
from llmasos.text.tokenizer import Tokenizer
from tests.inference_workers.model_files import gemma_tokens, write_gemma_gguf


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("models") / "echo"
    prepare("echo", "echo", folder, silent())
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    prepare(str(write_gemma_gguf(root / "small.gguf")), "small", root / "gemma", silent())
    return root / "gemma"


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path) -> Tokenizer:
    return Tokenizer.load(gemma_folder)


def test_it_begins_as_the_manifest_says(gemma: Tokenizer, echo: Tokenizer) -> None:
    assert gemma.encode("the")[0] == 2
    assert gemma.encode("the", add_special=False)[0] != 2
    assert gemma.encode("<bos>the") == gemma.encode("the")
    assert echo.encode("a") == [97]
    assert gemma.count("the") == 2


def test_the_manifest_can_be_overruled(gemma_folder: Path) -> None:
    assert Tokenizer.load(gemma_folder, add_bos=False).encode("the")[0] != 2


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_what_it_encodes_it_decodes(text: str, echo: Tokenizer) -> None:
    assert echo.decode(echo.encode(text), skip_special=False) == text


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="the and好🙂\n é", max_size=40))
def test_the_bytes_of_its_tokens_are_the_text(text: str, echo: Tokenizer, gemma: Tokenizer) -> None:
    for tokenizer in (echo, gemma):
        ids = tokenizer.encode(text, add_special=False)
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@pytest.mark.parametrize("token", [-1, 10**9, 1 << 40])
def test_an_id_that_is_none_is_refused(token: int, echo: Tokenizer) -> None:
    with pytest.raises(TokenizerError):
        echo.token_text(token)
    with pytest.raises(TokenizerError):
        echo.decode([97, token])


def test_half_a_surrogate_pair_is_refused(echo: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="surrogate"):
        echo.encode("a\ud83d")


def test_nul_bytes_are_text(echo: Tokenizer) -> None:
    assert echo.encode("a\0b") == [97, 0, 98]


def test_a_text_far_too_long_is_refused_unread(gemma: Tokenizer) -> None:
    text = "the and " * 1_250_000
    began = time.thread_time()
    with pytest.raises(TokenizerError) as caught:
        gemma.encode(text, at_most=1024)
    assert time.thread_time() - began < 0.2
    assert caught.value.code == "too_long"


def test_a_text_a_little_too_long_is_counted(echo: Tokenizer) -> None:
    assert echo.encode("a" * 100, at_most=100) == [97] * 100
    with pytest.raises(TokenizerError, match="101 tokens; at most 100"):
        echo.encode("é" + "a" * 99, at_most=100)


def test_a_missing_or_damaged_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="Prepare the model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="can't be read"):
        Tokenizer.load(tmp_path)


def test_a_replaced_file_is_read_again(tmp_path: Path, echo: Tokenizer) -> None:
    tokens = gemma_tokens()
    path = tmp_path / "tokenizer.json"
    gemma_tokenizer(tokens, {}).save(str(path))
    (tmp_path / "manifest.json").write_text(json.dumps({"bos_token_id": 2, "add_bos": True}))
    first = Tokenizer.load(tmp_path)
    assert Tokenizer.load(tmp_path) is first
    backend: Backend = echo.backend
    backend.save(str(path))
    assert Tokenizer.load(tmp_path).vocab_size == 258
