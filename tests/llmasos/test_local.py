"""A model in this process: the engine's tokens, for any number of threads."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from inference_workers.models.manifest import read_manifest
from llmasos import LLMa
from llmasos.errors import GenerationFailed, InvalidRequest, ModelNotFound, ModelUnavailable
from llmasos.local import LocalLLMa
from tests.inference_workers.model_files import write_gemma_gguf, write_llama


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMa]:
    origin = write_llama(tmp_path_factory.mktemp("origin") / "tiny")
    with LLMa.from_pretrained(origin, data=data, kv_memory=4 << 20, slots=4) as model:
        yield model


def test_a_stream_adds_up_to_the_whole_answer(model: LLMa) -> None:
    whole = model.generate("the", max_tokens=24, temperature=0)
    with model.stream("the", max_tokens=24, temperature=0) as stream:
        assert "".join(stream) == whole == stream.text
        assert stream.reason == "length"
        assert stream.usage is not None
        assert stream.usage.completion_tokens == 24


def test_its_greedy_tokens_are_transformers(model: LLMa, data: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    assert isinstance(model, LocalLLMa)
    folder = data / "models" / model.model
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = model.tokenizer.encode("the river")
    made = reference.generate(
        torch.tensor([ids]), max_new_tokens=20, do_sample=False, pad_token_id=257
    )[0, len(ids) :]
    theirs = model.tokenizer.decode([token for token in made.tolist() if token < 256])
    assert model.generate("the river", max_tokens=20, temperature=0) == theirs


def test_a_seed_repeats_an_answer(model: LLMa) -> None:
    one, two, three = (
        model.generate("the", max_tokens=16, temperature=1.5, seed=seed) for seed in (5, 5, 6)
    )
    assert one == two
    assert one != three


def test_threads_are_served_together_and_alike(model: LLMa) -> None:
    alone = {n: model.generate("x" * n, max_tokens=12, temperature=0) for n in range(1, 11)}
    together: dict[int, str] = {}

    def ask(n: int) -> None:
        together[n] = model.generate("x" * n, max_tokens=12, temperature=0)

    threads = [threading.Thread(target=ask, args=(n,)) for n in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_leaving_a_stream_frees_its_place(model: LLMa) -> None:
    for _ in range(10):
        with model.stream("the", max_tokens=400, temperature=0) as stream:
            next(stream)
    assert isinstance(model, LocalLLMa)
    model.generate("the", max_tokens=1)
    assert model._thread._engine.stats().running == 0


def test_it_scores_continuations(model: LLMa) -> None:
    scores = model.score("the", [" a", " b", " a"])
    assert scores[0] == pytest.approx(scores[2], abs=1e-5)
    assert all(score < 0 for score in scores)
    longer = model.score("the", [" a b"])[0]
    assert longer == pytest.approx(scores[0] + model.score("the a", [" b"])[0], abs=1e-3)


def test_likely_single_tokens_are_scored_alike_in_one_step(model: LLMa) -> None:
    assert isinstance(model, LocalLLMa)
    ids = model.tokenizer.encode("the")
    letters = [model.tokenizer.encode(chr(code))[0] for code in range(33, 127)]
    slowly = model._score_whole(len(ids), [[*ids, letter] for letter in letters])
    ranked = sorted(zip(slowly, letters, strict=True), reverse=True)[:3]
    quickly = model._score_next(ids, [letter for _, letter in ranked])
    assert quickly is not None
    assert quickly == pytest.approx([score for score, _ in ranked], abs=1e-5)
    unlikely = sorted(zip(slowly, letters, strict=True))[0][1]
    assert model._score_next(ids, [unlikely]) is None


def test_a_base_model_chats_in_a_transcript(model: LLMa) -> None:
    assert isinstance(model.chat([{"role": "user", "content": "Hi"}], max_tokens=8), str)


def test_an_instruct_model_chats_by_its_template(data: Path, tmp_path: Path) -> None:
    origin = write_llama(tmp_path / "talker")
    (origin / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with LLMa.from_pretrained(origin, data=data, kv_memory=4 << 20) as talker:
        assert talker.kind == "instruct"
        chatted = talker.chat([{"role": "user", "content": "the"}], max_tokens=9, temperature=0)
        assert chatted == talker.generate("the", max_tokens=9, temperature=0)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"max_tokens": -1}, {"top_p": 0}, {"temperature": "x"}]
)
def test_an_absurd_option_is_named(bad: dict[str, object], model: LLMa) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(bad))):
        model.generate("the", **bad)  # type: ignore[arg-type]


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [PERSON, json.dumps(PERSON)])
def test_an_answer_matches_its_schema_or_its_pattern(
    schema: dict[str, object] | str, model: LLMa
) -> None:
    said = model.generate("the person: ", schema=schema, temperature=0, max_tokens=200)
    jsonschema.validate(json.loads(said), PERSON)
    messages = [{"role": "user", "content": "Are you there?"}]
    assert model.chat(messages, regex="(yes|no)!", temperature=1.0) in {"yes!", "no!"}
    with model.stream("the", regex="[ab]{4}", temperature=1.0) as stream:
        assert len(stream.read()) == 4
        assert stream.reason == "stop"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schema": "{"}, "not JSON"),
        ({"schema": "[]"}, "an object"),
        ({"schema": {"a": {1}}}, "not JSON"),
        ({"schema": {}, "regex": "a"}, "not both"),
        ({"regex": 5}, "as text"),
        ({"regex": "["}, "unclosed"),
        ({"schema": {"type": "objekt"}}, "objekt"),
        ({"schema": {"type": "integer", "multipleOf": 999999937}}, "too complex"),
    ],
)
def test_a_guide_that_cant_be_followed_is_named(
    options: dict[str, Any], words: str, model: LLMa
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        model.generate("the", **options)


def test_a_prompt_longer_than_the_context_is_refused(model: LLMa) -> None:
    with pytest.raises(InvalidRequest, match="at most 512"):
        model.generate("x" * 513)
    with pytest.raises(InvalidRequest):
        model.generate("x" * 10_000_000)
    with pytest.raises(InvalidRequest):
        model.generate("x" * 512, max_tokens=5)


def test_an_empty_prompt_is_refused(model: LLMa) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        model.generate("")


def test_a_prepared_model_is_found_by_its_id(model: LLMa, data: Path) -> None:
    with LLMa.from_pretrained(model.model, data=data, kv_memory=4 << 20) as again:
        assert again.generate("the", max_tokens=5, temperature=0) == model.generate(
            "the", max_tokens=5, temperature=0
        )


def test_a_prepared_folder_is_used_where_it_lies(model: LLMa, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data / "models" / model.model, tmp_path / "copy")
    with LLMa.from_pretrained(folder, data=tmp_path / "empty", kv_memory=4 << 20) as again:
        assert again.model == model.model
    assert not (tmp_path / "empty").exists()


def test_a_gguf_file_is_prepared_once(data: Path, tmp_path: Path) -> None:
    path = write_gemma_gguf(tmp_path / "Small Gemma.gguf")
    with LLMa.from_pretrained(path, data=data, kv_memory=4 << 20) as gemma:
        assert gemma.generate("the", max_tokens=3) is not None
        made = read_manifest(data / "models" / gemma.model)
    with LLMa.from_pretrained(str(path), data=data, kv_memory=4 << 20) as again:
        assert read_manifest(data / "models" / again.model) == made


def test_an_unknown_name_says_where_it_was_sought(data: Path) -> None:
    with pytest.raises(ModelNotFound, match="no prepared one in"):
        LLMa.from_pretrained("nothing-here", data=data)


def test_the_articles_model_without_a_hub_names_the_remedy(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(ModelUnavailable, match="local folder or GGUF file") as caught:
        LLMa.from_pretrained("decapoda-research/llama-7b-hf", data=data)
    assert "decapoda-research/llama-7b-hf" in str(caught.value)


def test_a_closed_model_says_so(data: Path, model: LLMa) -> None:
    closed = LLMa.from_pretrained(model.model, data=data, kv_memory=4 << 20)
    stream = closed.stream("the", max_tokens=400, temperature=0)
    next(stream)
    closed.close()
    closed.close()
    with pytest.raises(GenerationFailed, match="closed"):
        stream.read()
    with pytest.raises(GenerationFailed, match="closed"):
        closed.generate("the")
