"""Short doses of what burdens a whole system; ``python -m tests.faults --full`` gives full ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.faults.cuts import random_cuts_of
from tests.faults.overload import SETTINGS, SLOTS, STEP, overload_of
from tests.faults.report import Row
from tests.faults.slow_readers import stalled_readers_of
from tests.faults.system import System

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with System(step=STEP, slots=SLOTS, **SETTINGS) as system:
        yield system


@pytest.fixture
def seed() -> int:
    return secrets.randbelow(10**6)


def kept(row: Row) -> None:
    print(row)
    assert not row.failures, str(row)


async def test_overload_sheds(system: System, seed: int) -> None:
    kept(await overload_of(system, seconds=4, seed=seed, slow=1.0))


async def test_readers_who_never_read_harm_nobody(system: System, seed: int) -> None:
    kept(await stalled_readers_of(system, seconds=4, seed=seed, noise=0.03))


async def test_a_stream_that_is_cut_anywhere_goes_on(system: System, seed: int) -> None:
    kept(await random_cuts_of(system, cuts=30, seed=seed, tokens=50))
