"""One running system for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.up import Up


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with Up() as system:
        system.wait_ready()
        yield system
