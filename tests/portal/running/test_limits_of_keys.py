"""Two hundred requests at once, to the running portal, with a key at its limit a minute."""

from __future__ import annotations

import secrets

from tests.faults.limits import key_limits_of
from tests.running import Running


async def test_no_request_is_granted_beyond_a_limit_and_headers_are_true(running: Running) -> None:
    row = await key_limits_of(running, seed=secrets.randbelow(10**6))
    print(row)
    assert not row.failures, str(row)
