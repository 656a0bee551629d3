"""The echo model keeps the engine's protocol as a real one does."""

from __future__ import annotations

from typing import Any

import pytest

from inference_workers.contract import Cancelled, Delta, Finished, Guide, Job, Sampling
from inference_workers.engine.echo import EOS, EchoEngine
from inference_workers.engine.protocol import EngineEvent
from inference_workers.errors import RequestError
from inference_workers.models.echo_folder import byte_tokenizer


def job(said: str | tuple[int, ...], seed: int = 7, **sampling: Any) -> Job:
    ids = tuple(said.encode()) if isinstance(said, str) else said
    options: dict[str, Any] = {"temperature": 0.0, **sampling}
    return Job(
        id="j1", team="red", source="test", model="echo", model_digest="", input_ids=ids,
        sampling=Sampling.model_validate(options), seed=seed,
    )  # fmt: skip


def run(request: Job, logged: list[Delta] | None = None) -> list[EngineEvent]:
    engine = EchoEngine(byte_tokenizer())
    engine.add(request, logged or [])
    events = []
    while engine.busy:
        events += [event for _, event in engine.step()]
    assert engine.stats().blocks_used == 0
    return events


def text(events: list[EngineEvent], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.choice == choice)


def test_greedy_says_the_prompt_again_and_again() -> None:
    events = run(job("héllo ", max_tokens=14))
    assert text(events) == "héllo héllo "
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.prompt_tokens, end.usage.completion_tokens) == ("length", 7, 14)


def test_every_token_is_its_own_delta_and_characters_stay_whole() -> None:
    events = run(job("é好", max_tokens=5))
    deltas = [event for event in events if isinstance(event, Delta)]
    assert [delta.first for delta in deltas] == [0, 1, 2, 3, 4]
    assert [delta.text for delta in deltas] == ["", "é", "", "", "好"]
    assert [delta.finish for delta in deltas] == [None] * 4 + ["length"]


def test_an_unfinished_character_at_the_end_is_a_replacement() -> None:
    assert text(run(job("好", max_tokens=2))) == "\ufffd"


def test_it_ends_at_a_stop_string_without_it() -> None:
    events = run(job("one two ", max_tokens=100, stop=("wo o",)))
    assert text(events) == "one t"
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


def test_it_ends_at_its_end_token_unless_told_otherwise() -> None:
    said = (104, 105, EOS)
    assert isinstance(run(job(said))[-2], Delta)
    assert text(run(job(said, max_tokens=9))) == "hi"
    assert text(run(job(said, max_tokens=9, ignore_eos=True))) == "hihihi"
    assert text(run(job(said, max_tokens=9, min_tokens=4))) == "hihi"
    assert text(run(job("hi!", max_tokens=9, stop_token_ids=(33,)))) == "hi!"


def test_sampled_tokens_depend_on_seed_choice_and_index_alone() -> None:
    first = run(job("a", max_tokens=30, temperature=1.0, n=2))
    assert first == run(job("a", max_tokens=30, temperature=1.0, n=2))
    assert len(text(first)) == 10
    assert text(first, 0) != text(first, 1)
    assert text(first) != text(run(job("a", 8, max_tokens=30, temperature=1.0)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 2])
def test_it_resumes_after_any_entry(temperature: float, n: int) -> None:
    options: dict[str, Any] = {"temperature": temperature, "n": n, "stop": ("é好é",), "logprobs": 2}
    request = job("é好x", max_tokens=12, prompt_logprobs=1, **options)
    whole = run(request)
    deltas = [event for event in whole if isinstance(event, Delta)]
    for cut in range(0, len(deltas) + 1, n):
        assert deltas[:cut] + run(request, deltas[:cut]) == whole


def test_logprobs_come_as_asked() -> None:
    events = run(job("abc", max_tokens=2, logprobs=3, prompt_logprobs=0))
    first, second = (event for event in events if isinstance(event, Delta))
    assert first.prompt_logprobs is not None
    assert [entry.token_id for entry in first.prompt_logprobs] == [98, 99]
    assert second.prompt_logprobs is None
    assert second.logprobs is not None
    assert len(second.logprobs[0].top) == 3


def test_scoring_alone_generates_nothing() -> None:
    events = run(job("abc", max_tokens=0, prompt_logprobs=0))
    assert [type(event) for event in events] == [Delta, Finished]
    assert text(events) == ""


def test_a_cancel_ends_it_in_the_next_step() -> None:
    engine = EchoEngine(byte_tokenizer())
    engine.add(job("abc"))
    engine.step()
    engine.cancel("j1")
    ((job_id, event),) = engine.step()
    assert job_id == "j1"
    assert isinstance(event, Cancelled)
    assert event.usage.completion_tokens == 1
    assert (engine.busy, engine.stats().running, engine.stats().blocks_used) == (False, 0, 0)


def test_a_long_prompt_takes_several_steps() -> None:
    engine = EchoEngine(byte_tokenizer(), chunk=4)
    engine.add(job("0123456789", max_tokens=1))
    assert [len(engine.step()) for _ in range(3)] == [0, 0, 2]


@pytest.mark.parametrize(("said", "code"), [("", "invalid_request"), ("a" * 9000, "context_")])
def test_what_can_never_run_is_refused(said: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        EchoEngine(byte_tokenizer()).add(job(said))
    assert refused.value.code.startswith(code)


def test_a_guide_is_refused_because_it_only_repeats() -> None:
    engine = EchoEngine(byte_tokenizer())
    with pytest.raises(RequestError, match="another model") as caught:
        engine.add(job("x", guide=Guide(kind="regex", text="y")))
    assert caught.value.code == "guide_unsupported"
    assert not engine.busy
