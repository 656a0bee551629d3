"""Guides that mean harm: refused or followed, within bounds of time, and never felt by others."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from inference_workers.contract import Failed, Guide
from inference_workers.engine import grammar
from inference_workers.engine.grammar import Grammars
from inference_workers.errors import RequestError
from tests.inference_workers.checkpoints import engine, job, run, tokenizer, tokens
from tests.inference_workers.schemas import HOSTILE

END = 257
LONGEST_COMPILE = 8.0
LONGEST_STEP = 1.0
"""Seconds on a busy machine; alone, the worst of both is below 2 s and 60 ms."""


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_or_followed_in_bounded_time(name: str) -> None:
    kind, text = HOSTILE[name]
    grammars = Grammars(tokenizer(), [END])
    grammars.warm()
    begin = time.monotonic()
    compiling = grammars.compile(Guide.model_validate({"kind": kind, "text": text}), [()])
    refused = compiling.future.exception(LONGEST_COMPILE)
    assert time.monotonic() - begin < LONGEST_COMPILE
    if refused is not None:
        assert isinstance(refused, RequestError)
        assert refused.code in {"guide_too_complex", "invalid_guide"}
        assert len(refused.message) < 600
        return
    (found,) = compiling.future.result()
    rng = np.random.default_rng(1)
    for _ in range(60):
        if found.error is not None:
            assert found.error.code == "guide_too_complex"
            return
        if found.complete:
            return
        bits = np.unpackbits(found.allowed().view(np.uint8), bitorder="little")
        begin = time.monotonic()
        found.take(int(rng.choice(np.flatnonzero(bits))))
        assert time.monotonic() - begin < LONGEST_STEP


def test_a_guide_that_becomes_too_complex_fails_alone_and_is_billed_what_it_said() -> None:
    wide = {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(900)}}
    guide = Guide(kind="json_schema", text=json.dumps(wide))
    served = engine("llama", eos_token_ids=[END], blocks=2000)
    found = run(served, [job("bad", (65,), guide=guide, ignore_eos=False), job("good", (66,))])
    end = found["bad"][-1]
    assert isinstance(end, Failed)
    assert end.code == "guide_too_complex"
    assert end.usage.completion_tokens == len(tokens(found["bad"])) > 0
    assert found["good"] == run(engine("llama"), [job("good", (66,))])["good"]


def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Compilations wait for the event: llguidance itself can't be made to take so long."""
    compiled, go = Grammars._compiled, threading.Event()

    def waiting(self: Grammars, guide: Guide, taken: Any) -> Any:
        go.wait(30)
        return compiled(self, guide, taken)

    monkeypatch.setattr(Grammars, "_compiled", waiting)
    return go


def test_no_step_waits_while_a_guide_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    go = held(monkeypatch)
    served = engine("llama", eos_token_ids=[END])
    served.add(job("guided", (65,), guide=Guide(kind="regex", text="a{3}")))
    served.add(job("plain", (66,), max_tokens=40))
    said = [each for _ in range(60) for each in served.step()]
    assert [event.type for name, event in said if name == "plain"][-1] == "finished"
    assert not any(name == "guided" for name, _ in said)
    go.set()
    assert run(served, [])["guided"][-1].reason == "stop"


def test_a_compilation_without_end_is_given_up_and_others_are_not_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = engine("llama", eos_token_ids=[END])
    with monkeypatch.context() as context:
        go = held(context)
        context.setattr(grammar, "COMPILE_SECONDS", 0.2)
        (event,) = run(served, [job("bad", (65,), guide=Guide(kind="regex", text="a"))])["bad"]
    assert (event.type, event.code) == ("failed", "guide_too_complex")
    found = run(served, [job("next", (65,), guide=Guide(kind="regex", text="a{3}"))])["next"]
    assert not go.is_set()
    assert found[-1].reason == "stop"
    go.set()
