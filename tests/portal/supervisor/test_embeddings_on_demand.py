"""The real encoder under ``manage.py up``: prepared at the start, served when asked for."""

from __future__ import annotations

import pytest
from openai import OpenAI

from tests.up import Up


@pytest.mark.slow
def test_the_first_request_starts_the_encoders_worker_and_is_answered() -> None:
    with Up(EMBEDDING_MODEL="all-minilm-l6-v2") as up:
        up.wait_ready()
        assert "model all-minilm-l6-v2: ready, 91 MB" in up.said
        assert "Apache-2.0" in up.said
        me = "me@example.org"
        up.manage("users", "add", me, "--password-stdin", given="correct horse battery")
        key = up.manage("keys", "create", "--user", me, "--name", "test")
        client = OpenAI(base_url=f"{up.url}/v1", api_key=key, max_retries=0, timeout=90)
        texts = ["The tide is coming in.", "High water is near.", "He sold his bicycle."]
        data = client.embeddings.create(model="all-minilm-l6-v2", input=texts).data
        first, second, third = (item.embedding for item in data)
        assert len(first) == 384
        assert _product(first, second) > _product(first, third) + 0.2
        assert "worker-all-minilm-l6-v2" in up.state["children"]


def _product(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
