"""Vectors in this process: the encoder's, for any number of threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from llmasos import LLMa
from llmasos.cli import app
from llmasos.errors import InvalidRequest
from tests.small_encoder import LONGEST, SIZE, letters, write_bert

torch.set_num_threads(1)
TEXTS = ["the tide is in", "high water", "a"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("origin") / "tiny")


@pytest.fixture(scope="module")
def model(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMa]:
    with LLMa.from_pretrained(origin, data=tmp_path_factory.mktemp("data")) as model:
        yield model


def test_its_vectors_are_transformers(model: LLMa, origin: Path) -> None:
    from transformers import BertModel

    tokenizer = letters()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    reference = BertModel.from_pretrained(origin).eval()
    for text, vector in zip(TEXTS, model.embed(TEXTS), strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            states = reference(ids).last_hidden_state.mean(1)
        wanted = torch.nn.functional.normalize(states, dim=1)[0].numpy()
        np.testing.assert_allclose(vector, wanted, atol=1e-5)


def test_threads_get_their_own(model: LLMa) -> None:
    wanted, wrong = {text: model.embed([text])[0] for text in TEXTS}, []

    def work(number: int) -> None:
        texts = [TEXTS[(number + i) % 3] for i in range(20)]
        for text, vector in zip(texts, model.embed(texts), strict=True):
            if not np.allclose(vector, wanted[text], atol=1e-5):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_it_cant_do_is_said_with_the_texts_number(model: LLMa) -> None:
    assert model.kind == "embedding"
    assert model.embed([]) == []
    with pytest.raises(InvalidRequest, match=rf"texts\[1\].*202 tokens; at most {LONGEST}"):
        model.embed(["a", "a " * 200])
    with pytest.raises(InvalidRequest, match=r"texts\[0\] is empty"):
        model.embed([""])
    with pytest.raises(InvalidRequest, match=r"texts\[1\] is not a text"):
        model.embed(["a", 5])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest, match=r"embed\(\[text\]\)"):
        model.embed("a")
    with pytest.raises(InvalidRequest, match="can't go on from a text"):
        model.generate("a")


def test_a_model_that_goes_on_from_text_makes_none(tmp_path: Path) -> None:
    with (
        LLMa.from_pretrained("echo", data=tmp_path) as echo,
        pytest.raises(InvalidRequest, match="makes no embeddings"),
    ):
        echo.embed(["a"])


def test_the_command_prints_a_line_of_json_for_each_text(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["embed", "high", "water", "--model", str(origin)])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [len(line) for line in lines] == [SIZE, SIZE]
