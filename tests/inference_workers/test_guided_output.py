"""Guided answers: what ends has the form that was asked for, and nobody else notices."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import pytest
import torch
from tokenizers import Tokenizer, decoders, models

from inference_workers.contract import Delta, Failed, Finished, Guide, Job, Usage
from inference_workers.engine.engine import TorchEngine
from inference_workers.errors import RequestError
from tests.inference_workers.checkpoints import (
    engine,
    job,
    model,
    prompts,
    reference,
    run,
    text,
    tokens,
)
from tests.inference_workers.schemas import schema

END = 257
PROMPT = tuple(b"Answer: ")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "好"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}

SHOP = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
        "c": {"enum": ["好", "€"]},
    },
    "required": ["n", "c"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small only lose by being shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def serving(name: str = "llama", **settings: Any) -> TorchEngine:
    return engine(name, **{"eos_token_ids": [END], "blocks": 2000, **settings})


def guided(
    name: str, what: Any, *, kind: str = "json_schema", prompt: Sequence[int] = PROMPT, **more: Any
) -> Job:
    source = what if isinstance(what, str) else json.dumps(what)
    more = {"ignore_eos": False, "max_tokens": 150, "temperature": 1.0, **more}
    return job(name, prompt, guide=Guide(kind=kind, text=source), **more)


def test_500_random_schemas_are_followed_by_every_answer_that_ends() -> None:
    rng = random.Random(11)
    schemas = {str(i): schema(rng) for i in range(500)}
    jobs = [
        guided(name, what, seed=int(name), temperature=rng.choice([0.0, 1.0, 1.5]))
        for name, what in schemas.items()
    ]
    found = run(serving(slots=64), jobs, limit=20_000)
    ended = [name for name in schemas if found[name][-1].reason == "stop"]
    for name in ended:
        jsonschema.validate(
            json.loads(text(found[name])), schemas[name], jsonschema.Draft202012Validator
        )
    assert len(ended) > 470
    assert all(isinstance(found[name][-1], Finished) for name in schemas)


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-f]{3}-[0-9]{2,4}",
        "(yes|no|maybe)",
        "[一-龥]{2,3}。",
        r"[^\n]{5}",
        "^anchored$",
        "(?i)Hey",
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_pattern_is_matched_from_the_first_token_to_the_end(
    pattern: str, temperature: float
) -> None:
    request = guided("job", pattern, kind="regex", temperature=temperature, seed=4)
    events = run(serving(), [request])["job"]
    assert re.fullmatch(pattern, text(events)), text(events)
    assert events[-1].reason == "stop"


def test_a_grammar_may_hold_schemas() -> None:
    lark = 'start: "<call>" body | "none"\nbody: %json ' + json.dumps(PERSON)
    for seed in range(6):
        events = run(serving(), [guided("job", lark, kind="lark", seed=seed, max_tokens=400)])
        said = text(events["job"])
        if said != "none":
            jsonschema.validate(json.loads(said.removeprefix("<call>")), PERSON)


def test_an_answer_ends_with_the_last_token_that_its_guide_allows() -> None:
    events = run(serving(), [guided("job", "(yes|no)", kind="regex")])["job"]
    assert len(tokens(events)) == len(text(events))
    assert events[-2].finish == "stop"


def test_the_end_is_allowed_exactly_where_the_text_may_end() -> None:
    """With a bias for the end, the answer is the shortest one; ignored, it is the longest."""
    request = guided("job", "a{2,5}", kind="regex", logit_bias={END: 100.0})
    events = run(serving(), [request])["job"]
    assert (text(events), tokens(events)[-1]) == ("aa", END)
    ignoring = guided("job", "a{2,5}", kind="regex", logit_bias={END: 100.0}, ignore_eos=True)
    assert text(run(serving(), [ignoring])["job"]) == "aaaaa"
    later = guided("job", "a{2,5}", kind="regex", logit_bias={END: 100.0}, min_tokens=4)
    assert text(run(serving(), [later])["job"]) == "aaaa"


def test_a_model_without_an_end_token_is_guided_too() -> None:
    events = run(serving(eos_token_ids=[]), [guided("job", "a{2,5}", kind="regex")])["job"]
    assert text(events) == "aaaaa"


def test_max_tokens_may_cut_an_answer_and_says_so() -> None:
    events = run(serving(), [guided("job", PERSON, max_tokens=5)])["job"]
    assert events[-1] == Finished(
        reason="length", usage=Usage(prompt_tokens=8, completion_tokens=5)
    )
    assert text(events).startswith("{")


def test_stop_strings_still_end_it() -> None:
    events = run(serving(), [guided("job", PERSON, stop=('"age"',))])["job"]
    assert events[-1].reason == "stop"
    assert text(events).rstrip().endswith(",")


def test_stop_tokens_never_leave_a_row_without_a_choice() -> None:
    request = guided("job", "ab", kind="regex", stop_token_ids=(ord("b"),), min_tokens=9)
    assert text(run(serving(), [request])["job"]) == "a"


def test_choices_follow_the_guide_apart_from_each_other() -> None:
    events = run(serving(), [guided("job", PERSON, n=5, seed=3)])["job"]
    texts = [text(events, choice) for choice in range(5)]
    assert len(set(texts)) == 5
    for said in texts:
        jsonschema.validate(json.loads(said), PERSON)


@pytest.mark.parametrize("sampling", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}])
def test_restricted_draws_stay_inside_the_guide(sampling: dict[str, Any]) -> None:
    for seed in range(4):
        events = run(serving(), [guided("job", PERSON, seed=seed, **sampling)])["job"]
        if events[-1].reason == "stop":
            jsonschema.validate(json.loads(text(events)), PERSON)


def test_log_probabilities_stay_the_models_own() -> None:
    request = guided("job", PERSON, logprobs=3, max_tokens=12, temperature=0.8)
    events = run(serving(), [request])["job"]
    ids = [*PROMPT, *tokens(events)]
    with torch.inference_mode():
        truth = reference("llama")(torch.tensor([ids])).logits[0].log_softmax(-1)
    for position, delta in enumerate(events[:-1], len(PROMPT) - 1):
        (scored,) = delta.logprobs
        assert scored.logprob == pytest.approx(float(truth[position, scored.token_id]), abs=1e-4)
        assert [t for t, _ in scored.top] == truth[position].topk(3).indices.tolist()


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_plain_rows_beside_guided_ones_are_what_they_are_alone(name: str) -> None:
    plain = [
        job(
            f"plain {i}",
            prompt,
            temperature=i % 3 * 0.6,
            seed=i,
            logprobs=1 if i % 4 == 3 else None,
        )
        for i, prompt in enumerate(prompts(12))
    ]
    mixed: list[Job] = []
    for i, request in enumerate(plain):
        mixed += [request, guided(f"guided {i}", PERSON, seed=i, max_tokens=20)]
    together = run(serving(name, token_budget=30), mixed)
    for request in plain:
        alone = run(serving(name), [request])[request.id]
        assert tokens(together[request.id]) == tokens(alone)
        assert text(together[request.id]) == text(alone)
        assert together[request.id][-1] == alone[-1]


def test_guided_rows_are_the_same_in_any_batch_and_after_preemption() -> None:
    jobs = [guided(str(i), PERSON, prompt=tuple(b"No. %d: " % i), seed=i) for i in range(6)]
    crowded = serving(blocks=45, slots=6, reuse_prefixes=False)
    together = run(crowded, jobs)
    assert crowded._scheduler.preemptions > 0
    for request in jobs:
        assert run(serving(), [request])[request.id] == together[request.id]


def test_a_greedy_row_is_the_same_whether_or_not_all_its_logits_are_looked_at() -> None:
    jobs = [guided(str(i), PERSON, prompt=tuple(b"No. %d: " % i), temperature=0) for i in range(6)]
    # A row that draws needs all logits, and then they are computed for every row.
    drawing = job("drawing", PROMPT, temperature=1.0, max_tokens=150)
    alone, beside = run(serving(), jobs), run(serving(), [*jobs, drawing])
    for request in jobs:
        assert tokens(alone[request.id]) == tokens(beside[request.id])


def test_greedy_rows_with_a_guide_need_no_logits_but_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, seen = serving(), []
    logits = served._model.logits
    monkeypatch.setattr(served._model, "logits", lambda x: seen.append(len(x)) or logits(x))
    run(served, [job("free", PROMPT)])
    assert not seen
    told = run(served, [guided("told", r"[\s\S]{1,400}", kind="regex", temperature=0)])["told"]
    assert tokens(told)
    assert not seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_takeover_after_any_token_goes_on_exactly(temperature: float) -> None:
    request = guided("job", SHOP, temperature=temperature, seed=8)
    whole = run(serving(), [request])["job"]
    deltas = [event for event in whole if isinstance(event, Delta)]
    jsonschema.validate(json.loads(text(whole)), SHOP)
    for cut in range(len(deltas) + 1):
        heir = serving(token_budget=7)
        heir.add(job("stranger", prompts(3)[2], max_tokens=5))
        heir.step()
        heir.add(request, deltas[:cut])
        assert run(heir, [])["job"] == whole[cut:], f"after {cut} tokens"


def test_choices_that_ended_stay_ended_after_a_takeover() -> None:
    request = guided("job", "(yes|no|[a-z]{9})", kind="regex", n=4, seed=2)
    whole = run(serving(), [request])["job"]
    deltas = [event for event in whole if isinstance(event, Delta)]
    for cut in range(0, len(deltas) + 1, 5):
        heir = serving()
        heir.add(request, deltas[:cut])
        rest = [*deltas[:cut], *run(heir, [])["job"]]
        assert [text(rest, c) for c in range(4)] == [text(whole, c) for c in range(4)]


def test_a_log_that_its_guide_forbids_is_refused() -> None:
    served = serving()
    served.add(guided("job", PERSON), [Delta(first=0, token_ids=(ord("x"),), text="x")])
    (event,) = run(served, [])["job"]
    assert isinstance(event, Failed)
    assert event.code == "invalid_guide"


@pytest.mark.parametrize(
    ("kind", "what", "code", "words"),
    [
        ("json_schema", "{", "invalid_guide", "line 1"),
        ("json_schema", '{"type": "objekt"}', "invalid_guide", "objekt"),
        ("json_schema", "[]", "invalid_guide", "object schema"),
        ("json_schema", '{"enum": []}', "invalid_guide", "Unsatisfiable"),
        ("json_schema", '{"$ref": "#"}', "invalid_guide", "no text"),
        ("json_schema", '{"$ref": "http://127.0.0.1:9/x"}', "invalid_guide", "127.0.0.1"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "invalid_guide", "uniqueItems"),
        ("regex", "[", "invalid_guide", "unclosed"),
        ("regex", "(?=a)b", "invalid_guide", "look-around"),
        ("regex", "", "invalid_guide", "no text"),
        ("lark", "x: 'a'", "invalid_guide", ""),
        (
            "json_schema",
            '{"type": "integer", "multipleOf": 999999937}',
            "guide_too_complex",
            "fuel",
        ),
    ],
)
def test_a_guide_that_cant_be_followed_is_refused_before_anything_runs(
    kind: str, what: str, code: str, words: str
) -> None:
    found = run(serving(), [guided("bad", what, kind=kind), job("good", PROMPT)])
    (event,) = found["bad"]
    assert isinstance(event, Failed)
    assert (event.code, event.usage) == (code, Usage())
    assert event.message.startswith("guide: ")
    assert words in event.message
    assert found["good"][-1].reason == "length"


def test_a_tokenizer_that_looks_at_neighbours_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    words.decoder = decoders.WordPiece()
    served = TorchEngine(model("llama"), words, kv_memory=1 << 20)
    with pytest.raises(RequestError, match="can't be guided") as caught:
        served.add(guided("job", PERSON, prompt=(0, 1)))
    assert caught.value.code == "guide_unsupported"
    assert not served.busy


def test_nothing_to_generate_needs_no_guide() -> None:
    events = run(serving(), [guided("job", "[", kind="regex", max_tokens=0)])["job"]
    assert events[-1].reason == "length"


@pytest.mark.parametrize("how", ["cancel", "remove"])
def test_a_job_may_go_while_its_guide_is_compiled(how: str) -> None:
    served = serving(slots=4)
    served.add(guided("job", PERSON, n=3))
    assert served.busy
    assert served.capacity() == 1
    getattr(served, how)("job")
    assert served.capacity() == 4
    assert set(run(served, [job("next", PROMPT)])) == (
        {"job", "next"} if how == "cancel" else {"next"}
    )
    assert served.stats().blocks_used == 0 or served.stats().running == 0
