"""A key and OpenAI's own clients for the running system."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.running import Running


@pytest.fixture(scope="session")
def api_key(running: Running) -> str:
    return running.make_key("caller@example.org")


@pytest.fixture
def client(running: Running, api_key: str) -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=api_key, max_retries=0, timeout=30)


@pytest.fixture
def aclient(running: Running, api_key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{running.url}/v1", api_key=api_key, max_retries=0, timeout=30)
