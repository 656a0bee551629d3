"""Visitors and keys have quotas, kept in Redis; the database never hears of a refusal."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_django import Settings

from portal.accounts.models import User
from portal.teams.models import ApiKey, Team
from portal.teams.services import create_key
from portal.usage.limits import (
    RateLimited,
    acheck_anonymous,
    check_anonymous,
    check_key,
)
from tests.environment import Valkey


@pytest.fixture
def few(settings: Settings) -> None:
    few = {"anonymous_jobs_per_hour": 5, "api_requests_per_minute": 20}
    settings.LLMASOS = settings.LLMASOS.model_copy(update=few)


@pytest.fixture
def key(team: Team, member: User) -> ApiKey:
    return create_key(team=team, user=member, name="laptop")[0]


@pytest.mark.usefixtures("redis", "few")
class TestVisitors:
    """No database is allowed in these tests, so a query would be an error."""

    def test_the_quota_is_exact_and_says_when_to_come_back(self) -> None:
        left = [check_anonymous("192.0.2.1").remaining for _ in range(5)]
        assert left == [4, 3, 2, 1, 0]
        with pytest.raises(RateLimited) as caught:
            check_anonymous("192.0.2.1")
        assert 700 < caught.value.retry_after <= 720

    def test_addresses_do_not_share(self) -> None:
        for _ in range(5):
            check_anonymous("192.0.2.1")
        check_anonymous("192.0.2.2")

    def test_one_ipv6_network_is_one_visitor(self) -> None:
        for host in range(5):
            check_anonymous(f"2001:db8::{host:x}")
        with pytest.raises(RateLimited):
            check_anonymous("2001:db8::ffff")
        check_anonymous("2001:db8:0:1::1")

    async def test_async_and_sync_count_together(self) -> None:
        for _ in range(3):
            await acheck_anonymous("192.0.2.1")
        await asyncio.to_thread(check_anonymous, "192.0.2.1")
        assert (await acheck_anonymous("192.0.2.1")).remaining == 0
        with pytest.raises(RateLimited):
            await acheck_anonymous("192.0.2.1")

    def test_a_quota_of_zero_closes_the_door(self, settings: Settings) -> None:
        none = {"anonymous_jobs_per_hour": 0}
        settings.LLMASOS = settings.LLMASOS.model_copy(update=none)
        with pytest.raises(RateLimited):
            check_anonymous("192.0.2.1")


@pytest.mark.usefixtures("redis", "few")
def test_two_hundred_at_once_share_twenty_calls(key: ApiKey) -> None:
    def attempt(_: int) -> bool:
        try:
            check_key(key)
        except RateLimited:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(200))) == 20


@pytest.mark.usefixtures("few")
def test_without_redis_keys_pass_and_visitors_wait(valkey: Valkey, key: ApiKey) -> None:
    valkey.stop(signal.SIGKILL)
    try:
        assert check_key(key).remaining == 20
        with pytest.raises(RateLimited):
            check_anonymous("192.0.2.1")
    finally:
        valkey.start()
    assert check_anonymous("192.0.2.1").limit == 5
