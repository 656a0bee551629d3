"""What portal and workers say to each other, as it is written today: golden JSON both ways.

A change here is a change of what runs in Redis during an upgrade: old and new processes must both
read it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from inference_workers.contract import (
    Cancelled,
    Delta,
    Embedded,
    Entry,
    Failed,
    Finished,
    Job,
    Sampling,
    Started,
    TokenLogprob,
    Usage,
    read_event,
    write_event,
)

JOB = Job(
    id="0b9f",
    team="7c1e",
    source="api",
    model="gemma-3-270m",
    model_digest="sha256:ab",
    input_ids=(2, 10, 11),
    prefixes=(("salt", 3),),
    pinned=2,
    sampling=Sampling(max_tokens=5, temperature=0.5, stop=("\n",), logit_bias={7: -1.5}),
    seed=9223372036854775807,
    deadline=1795000000.25,
    epoch=2,
)
JOB_JSON = (
    '{"id":"0b9f","team":"7c1e","source":"api","model":"gemma-3-270m","model_digest":"sha256:ab",'
    '"input_ids":[2,10,11],"prefixes":[["salt",3]],"pinned":2,"sampling":{"max_tokens":5,'
    '"temperature":0.5,"logit_bias":{"7":-1.5},"stop":["\\n"]},"seed":9223372036854775807,"deadline":1795000000.25,'
    '"epoch":2}'
)

EVENTS: list[tuple[Any, str]] = [
    (Started(worker="w1"), '{"type":"started","worker":"w1"}'),
    (
        Delta(first=0, token_ids=(5,), text="é\n"),
        '{"type":"delta","first":0,"token_ids":[5],"text":"é\\n"}',
    ),
    (
        Delta(
            choice=1,
            first=3,
            token_ids=(5,),
            logprobs=(TokenLogprob(token_id=5, logprob=-0.5, top=((5, -0.5), (6, -1.25))),),
            finish="stop",
        ),
        '{"type":"delta","choice":1,"first":3,"token_ids":[5],"logprobs":[{"token_id":5,'
        '"logprob":-0.5,"top":[[5,-0.5],[6,-1.25]]}],"finish":"stop"}',
    ),
    (
        Embedded(texts=(4, 0), vectors=("AACAPw==", "AAAAAA==")),
        '{"type":"embedded","texts":[4,0],"vectors":["AACAPw==","AAAAAA=="]}',
    ),
    (
        Finished(reason="length", usage=Usage(prompt_tokens=3, completion_tokens=5)),
        '{"type":"finished","reason":"length","usage":{"prompt_tokens":3,"completion_tokens":5}}',
    ),
    (
        Failed(code="worker_lost", message="Try again."),
        '{"type":"failed","code":"worker_lost","message":"Try again."}',
    ),
    (Cancelled(), '{"type":"cancelled"}'),
    (
        Cancelled(usage=Usage(prompt_tokens=3, cached_tokens=2)),
        '{"type":"cancelled","usage":{"prompt_tokens":3,"cached_tokens":2}}',
    ),
]


def test_a_job_is_written_and_read_as_agreed() -> None:
    assert JOB.write() == JOB_JSON
    assert Job.read(JOB_JSON) == JOB


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_an_event_is_written_and_read_as_agreed(event: Any, text: str) -> None:
    assert write_event(event) == text
    assert read_event(text) == event
    assert read_event(text.encode()) == event


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_a_newer_writers_fields_are_ignored(event: Any, text: str) -> None:
    newer = json.dumps({**json.loads(text), "mood": "new"})
    assert read_event(newer) == event


def test_an_encoders_job_says_how_long_its_texts_are() -> None:
    job = JOB.model_copy(update={"lengths": (1, 2)})
    assert job.write() == JOB_JSON.replace('"prefixes"', '"lengths":[1,2],"prefixes"')
    assert Job.read(job.write()) == job


def test_a_newer_job_is_read_too() -> None:
    newer = json.loads(JOB_JSON)
    newer |= {"priority": 3}
    newer["sampling"] |= {"mirostat": 2}
    assert Job.read(json.dumps(newer)) == JOB


def test_writers_are_strict() -> None:
    with pytest.raises(ValidationError):
        Started(worker="w1", mood="new")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        JOB.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"type":"delta"}', '{"type":"news"}', '{"type":"started"', "\0"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        read_event(text)


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_an_entry_is_the_same_from_its_event_and_from_its_text(event: Any, text: str) -> None:
    made, logged = Entry(seq=1, epoch=1, event=event), Entry(seq=1, epoch=1, text=text)
    assert (logged.terminal, logged.event) == (made.terminal, event)
    assert made == logged
    assert read_event(made.text) == read_event(logged.text) == event
    assert made != Entry(seq=2, epoch=1, event=event)


def test_an_entry_passes_on_what_it_was_made_of_unread() -> None:
    from_newer = '{"type":"delta","first":0,"token_ids":[1],"mood":"new"}'
    assert Entry(seq=1, epoch=1, text=from_newer).text == from_newer
    nonsense = Entry(seq=1, epoch=1, text='{"type":"news"}')
    with pytest.raises(ValidationError):
        nonsense.terminal
    with pytest.raises(TypeError):
        Entry(seq=1, epoch=1)


def test_terminal_entries_are_known_by_their_type() -> None:
    ends = [Entry(seq=1, epoch=1, event=event).terminal for event, _ in EVENTS]
    assert ends == [False, False, False, False, True, True, True, True]
