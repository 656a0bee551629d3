"""A worker that dies in the middle of many texts: the next one makes what is missing."""

from __future__ import annotations

import base64
import random
import signal
import uuid

import numpy as np
import pytest
import torch

from inference_workers.contract import Embedded, Entry, Finished, Job, Sampling
from inference_workers.models.loader import load
from tests.faults.house import MODEL, House, a_house, until
from tests.small_encoder import LONGEST, VOCABULARY, prepared_bert

pytestmark = pytest.mark.slow
COUNT = 2048


def embedded(house: House, job: Job) -> list[Entry]:
    entries = house.log.read(job.id, count=100_000)
    return [entry for entry in entries if isinstance(entry.event, Embedded)]


def test_after_a_kill_nothing_is_missing_and_nothing_made_twice() -> None:
    draw = random.Random(3)
    texts = [
        tuple(draw.randrange(5, VOCABULARY) for _ in range(draw.randint(40, LONGEST)))
        for _ in range(COUNT)
    ]
    with a_house(lease=2.0, prepare=prepared_bert) as house:
        job = Job(
            id=uuid.uuid4().hex, team="red", source="test", model=MODEL,
            model_digest=house.manifest.digest, format="fp32",
            input_ids=tuple(token for text in texts for token in text),
            lengths=tuple(map(len, texts)), sampling=Sampling(max_tokens=0), seed=0,
        )  # fmt: skip
        name = house.worker()
        house.submit(job)
        until(lambda: embedded(house, job), 30, "it has begun")
        house.signal(name, signal.SIGKILL)
        before = len(embedded(house, job))
        house.worker()
        until(lambda: house.reader.jobs[job.id].ended, 60, "another one finishes it")
        made = embedded(house, job)
        assert 0 < before < len(made)
        assert {entry.epoch for entry in made} == {1, 2}
        end = house.log.read(job.id, count=100_000)[-1].event
        assert isinstance(end, Finished)
        assert end.usage.prompt_tokens == len(job.input_ids)
        found: dict[int, bytes] = {}
        for entry in made:
            assert isinstance(entry.event, Embedded)
            for text, vector in zip(entry.event.texts, entry.event.vectors, strict=True):
                assert text not in found
                found[text] = base64.b64decode(vector)
        assert sorted(found) == list(range(COUNT))
        model, _ = load(house.folder / "model", device="cpu")
        with torch.inference_mode():
            wanted = model.embed(texts).numpy()
        rows = np.array([np.frombuffer(found[text], "<f4") for text in range(COUNT)])
        np.testing.assert_allclose(rows, wanted, atol=1e-5)
