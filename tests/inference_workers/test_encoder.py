"""The encoder: transformers' vectors, in any company, after any takeover."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_workers.contract import Cancelled, Embedded, Failed, Finished, Job, Made, Sampling
from inference_workers.engine.encoder import EncoderEngine
from inference_workers.errors import ModelError, RequestError
from inference_workers.loop import Admission, EngineLoop
from inference_workers.models.loader import load
from inference_workers.models.prepare import prepare
from inference_workers.models.report import silent
from inference_workers.queue import Claim
from inference_workers.sink import MemorySink
from tests.faults.house import until
from tests.small_encoder import LONGEST, SIZE, VOCABULARY, prepared_bert, write_bert

# Models this small gain nothing from a second thread, and lose much where others compute as well.
torch.set_num_threads(1)
Vectors = dict[int, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "small"
    prepared_bert(folder, "small")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder, device="cpu")[0]


def some_texts(count: int, seed: int = 1, longest: int = LONGEST) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    return [
        tuple(draw.randrange(5, VOCABULARY) for _ in range(draw.randint(1, longest)))
        for _ in range(count)
    ]


def reference(folder: Path, texts: Sequence[Sequence[int]], *, first: bool = False) -> np.ndarray:
    """Transformers' own module on one padded batch, pooled and normalised."""
    from transformers import BertModel

    module = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
    seen = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    with torch.inference_mode():
        states = module(input_ids=ids, attention_mask=seen).last_hidden_state
    mask = seen[:, :, None]
    pooled = states[:, 0] if first else (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


def a_job(job_id: str, texts: Sequence[Sequence[int]]) -> Job:
    return Job(
        id=job_id, team="red", source="test", model="small", model_digest="",
        input_ids=tuple(token for text in texts for token in text),
        lengths=tuple(map(len, texts)), sampling=Sampling(max_tokens=0), seed=0,
    )  # fmt: skip


def run(engine: EncoderEngine, steps: int = 1000) -> dict[str, list[Any]]:
    """Each job's events until nothing is left to do, or for so many steps."""
    found: dict[str, list[Any]] = {}
    while engine.busy and steps:
        steps -= 1
        for job_id, event in engine.step():
            found.setdefault(job_id, []).append(event)
    return found


def vectors(events: Sequence[Any]) -> Vectors:
    """By the number of their text; none comes twice."""
    found: Vectors = {}
    for event in events:
        if isinstance(event, Embedded):
            for text, vector in zip(event.texts, event.vectors, strict=True):
                assert text not in found
                found[text] = np.frombuffer(base64.b64decode(vector), "<f4")
    return found


def test_vectors_are_those_of_transformers_alone_and_in_any_batch(folder: Path, model: Any) -> None:
    texts = some_texts(40)
    wanted = reference(folder, texts)
    with torch.inference_mode():
        together = model.embed(texts).numpy()
        alone = np.concatenate([model.embed([text]).numpy() for text in texts])
    np.testing.assert_allclose(together, wanted, atol=1e-5)
    np.testing.assert_allclose(alone, wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    draw = random.Random(2)
    for _ in range(20):
        some = draw.sample(range(40), draw.randint(1, 20))
        with torch.inference_mode():
            found = model.embed([texts[i] for i in some]).numpy()
        np.testing.assert_allclose(found, wanted[some], atol=1e-5)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
def test_the_first_state_may_be_the_vector(tmp_path: Path, act: str) -> None:
    origin = write_bert(tmp_path / "origin", pooling="cls_token", hidden_act=act)
    prepare(str(origin), "first", tmp_path / "first", silent())
    made, _ = load(tmp_path / "first", device="cpu")
    texts = some_texts(12)
    with torch.inference_mode():
        found = made.embed(texts).numpy()
    np.testing.assert_allclose(found, reference(origin, texts, first=True), atol=1e-5)


@pytest.mark.parametrize("budget", [1, 40, 100_000])
def test_jobs_run_together_and_each_text_gets_one_vector(
    folder: Path, model: Any, budget: int
) -> None:
    engine = EncoderEngine(model, token_budget=budget)
    jobs = {f"j{n}": some_texts(count, seed=n) for n, count in enumerate((1, 7, 30))}
    for job_id, texts in jobs.items():
        engine.add(a_job(job_id, texts))
    assert engine.capacity() == 29
    events = run(engine)
    for job_id, texts in jobs.items():
        found = vectors(events[job_id])
        wanted = reference(folder, texts)
        assert sorted(found) == list(range(len(texts)))
        np.testing.assert_allclose([found[i] for i in sorted(found)], wanted, atol=1e-5)
        end = events[job_id][-1]
        assert isinstance(end, Finished)
        assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (sum(map(len, texts)), 0)
    stats = engine.stats()
    assert stats.prompt_tokens == sum(len(text) for texts in jobs.values() for text in texts)
    assert (stats.running, engine.capacity()) == (0, 32)


def test_a_step_holds_no_more_than_its_budget_and_similar_texts(model: Any) -> None:
    engine, texts = EncoderEngine(model, token_budget=100), some_texts(60)
    engine.add(a_job("j", texts))
    steps = [e.texts for e in run(engine)["j"] if isinstance(e, Embedded)]
    assert all(sum(len(texts[i]) for i in step) <= 100 for step in steps)
    lengths = [len(texts[i]) for step in steps for i in step]
    assert lengths == sorted(lengths, reverse=True)


def test_a_single_text_waits_for_one_step_however_many_are_before_it(model: Any) -> None:
    engine = EncoderEngine(model, token_budget=200)
    engine.add(a_job("many", some_texts(500)))
    engine.step()
    engine.add(a_job("one", some_texts(1)))
    engine.add(a_job("two", some_texts(2)))
    events = run(engine, steps=2)
    assert isinstance(events["one"][-1], Finished)
    assert isinstance(events["two"][-1], Finished)


def test_after_any_step_the_rest_is_what_is_missing(folder: Path, model: Any) -> None:
    texts = some_texts(40)
    wanted = reference(folder, texts)
    whole = [*run(_with(model, texts))["j"]]
    for cut in range(len(whole)):
        logged: list[Made] = [e for e in whole[:cut] if isinstance(e, Embedded)]
        rest = run(_with(model, texts, logged, budget=64))["j"]
        found = vectors([*logged, *rest])
        assert sorted(found) == list(range(40))
        np.testing.assert_allclose([found[i] for i in range(40)], wanted, atol=1e-5)
        assert rest[-1] == whole[-1]


def _with(
    model: Any, texts: Sequence[Sequence[int]], logged: Sequence[Made] = (), budget: int = 200
) -> EncoderEngine:
    engine = EncoderEngine(model, token_budget=budget)
    engine.add(a_job("j", texts), logged)
    return engine


def test_a_stop_is_heeded_at_the_next_step(model: Any) -> None:
    engine = EncoderEngine(model, token_budget=100)
    engine.add(a_job("stopped", some_texts(300)))
    engine.add(a_job("dropped", some_texts(300)))
    engine.step()
    engine.cancel("stopped")
    engine.remove("dropped")
    assert [(i, type(event)) for i, event in engine.step()] == [("stopped", Cancelled)]
    assert not engine.busy


class Slow:
    """Takes a while for each step."""

    def __init__(self, model: Any) -> None:
        self._model, self.shape = model, model.shape

    def embed(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        time.sleep(0.02)
        found: torch.Tensor = self._model.embed(texts)
        return found


def test_in_a_workers_loop_deadlines_and_stops_end_it_between_two_steps(model: Any) -> None:
    engine, sink = EncoderEngine(Slow(model), token_budget=64), MemorySink()
    loop = EngineLoop(engine, sink, worker="w1")
    loop.start()
    late = a_job("late", some_texts(2000)).model_copy(update={"deadline": time.time() + 0.3})
    for job in (late, a_job("stopped", some_texts(2000)), a_job("short", some_texts(4))):
        assert loop.reserve()
        loop.admit(Admission(Claim(job.model_copy(update={"epoch": 1}), 0, False)))

    def end(job_id: str) -> Any:
        ended = until(lambda: [e for e in sink.read(job_id) if e.terminal], 10, "it ends")
        return ended[0].event

    assert isinstance(end("short"), Finished)
    sink.cancel("stopped")
    loop.wake()
    assert isinstance(end("stopped"), Cancelled)
    failed = end("late")
    assert isinstance(failed, Failed)
    assert failed.code == "deadline_exceeded"
    events = [entry.event.type for entry in sink.read("late")]
    assert events[:2] == ["started", "embedded"]
    assert len(events) < 200
    assert not engine.busy
    assert loop.stop(5)


def test_what_can_never_run_is_refused_with_numbers(model: Any) -> None:
    engine = EncoderEngine(model, context_length=LONGEST, digest="sha256:0")
    good = a_job("j", some_texts(3))
    cases = {
        "goes on|can't go on": good.model_copy(update={"lengths": ()}),
        r"input\[1\] has 65 tokens; .* at most 64": a_job("j", [(5,), (5,) * 65]),
        "lengths": good.model_copy(update={"lengths": (1,)}),
        f"token {VOCABULARY}": a_job("j", [(5, VOCABULARY)]),
        "weights": good.model_copy(update={"model_digest": "sha256:1"}),
    }
    for said, job in cases.items():
        with pytest.raises(RequestError, match=said):
            engine.add(job)
    with pytest.raises(RequestError, match="has a text 9"):
        engine.add(good, [Embedded(texts=(9,), vectors=("",))])
    engine.add(good)
    with pytest.raises(RequestError, match="already running"):
        engine.add(good)


class Stumbling:
    """Can't compute a text with token 7; makes nothing finite of one with token 8."""

    def __init__(self, model: Any) -> None:
        self._model, self.shape = model, model.shape

    def embed(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        if any(7 in text for text in texts):
            raise RuntimeError("a kernel failed")
        found = self._model.embed(texts)
        for row, text in enumerate(texts):
            if 8 in text:
                found[row] = float("nan")
        return found


def test_a_text_that_cant_be_computed_fails_its_job_alone(model: Any) -> None:
    engine = EncoderEngine(Stumbling(model))  # type: ignore[arg-type]
    engine.add(a_job("bad", [(5,), (6, 7), (5, 5)]))
    engine.add(a_job("odd", [(5,), (6, 8)]))
    for number in range(8):
        engine.add(a_job(f"good{number}", [(5, 9 + number), (6,)]))
    events = run(engine)
    ends = {job_id: found[-1] for job_id, found in events.items()}
    assert isinstance(ends["bad"], Failed)
    assert ends["bad"].code == "internal"
    assert isinstance(ends["odd"], Failed)
    assert ends["odd"].code == "not_finite"
    for number in range(8):
        assert len(vectors(events[f"good{number}"])) == 2
        assert isinstance(ends[f"good{number}"], Finished)
    assert not engine.busy


def test_an_encoder_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    manifest = load(folder, device="cpu")[1]
    assert (manifest.kind, manifest.family, manifest.dimensions) == ("embedding", "bert", SIZE)
    assert manifest.context_length == LONGEST
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "model.safetensors", "config.json", "tokenizer.json",
        "config.resolved.json",
    }  # fmt: skip
    long = write_bert(tmp_path / "long", longest=1000)
    assert prepare(str(long), "long", tmp_path / "out", silent()).context_length == 96


def test_what_isnt_computed_here_is_refused_while_it_is_prepared(tmp_path: Path) -> None:
    cases: list[Any] = [
        ("unsupported_pooling", {"pooling": "max_tokens"}, None),
        ("unknown_architecture", {"hidden_act": "silu"}, None),
        ("wrong_kind", {}, "base"),
    ]
    for number, (code, changes, kind) in enumerate(cases):
        origin = write_bert(tmp_path / f"origin{number}", **changes)
        with pytest.raises(ModelError) as caught:
            prepare(str(origin), "small", tmp_path / "out", silent(), kind=kind)
        assert caught.value.code == code, caught.value.message
        assert not (tmp_path / "out").exists()
