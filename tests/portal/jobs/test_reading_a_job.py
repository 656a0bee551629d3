"""Any reader, from any number, at any time: the same entries, in order, once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing

import pytest

from inference_workers.contract import Delta, Entry
from inference_workers.queue import Append
from portal.jobs import links, reader, selectors, tail
from portal.jobs.keeper import Keeper
from portal.jobs.models import Job
from portal.jobs.reader import Notice
from portal.threads import in_thread
from tests.environment import Valkey
from tests.portal.jobs.conftest import Worker

Make = Callable[..., Job]
run = in_thread


async def read(job: Job, after: int = 0, limit: int | None = None) -> list[Entry]:
    found: list[Entry] = []
    async with asyncio.timeout(20), aclosing(reader.events(job, after)) as items:
        async for item in items:
            if isinstance(item, Entry):
                found.append(item)
                if limit is not None and len(found) >= limit:
                    break
    return found


async def notices(job: Job, count: int, after: int = 0) -> list[Notice]:
    found: list[Notice] = []
    async with asyncio.timeout(10), aclosing(reader.events(job, after)) as items:
        async for item in items:
            if isinstance(item, Notice):
                found.append(item)
                if len(found) == count:
                    return found
    return found


async def test_long_silence_is_broken_and_changes_nothing(
    make_job: Make, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "NOTICE_S", 0.05)
    monkeypatch.setattr(reader, "KEEPALIVE_S", 0.2)
    job = await run(make_job)()
    await run(worker.claim)()
    await run(worker.say)("a")
    began = time.monotonic()
    assert await notices(job, 3) == [reader.SILENT] * 3
    assert 0.6 <= time.monotonic() - began < 5
    await run(worker.finish)()
    assert [entry.seq for entry in await read(job)] == [1, 2, 3]


async def test_every_reader_sees_the_whole_log_live(make_job: Make, worker: Worker) -> None:
    job = await run(make_job)()
    readers = [asyncio.create_task(read(job)) for _ in range(5)]
    await run(worker.claim)()
    for text in "abcdefgh":
        await run(worker.say)(text)
    await run(worker.finish)()
    logs = await asyncio.gather(*readers)
    assert [e.seq for e in logs[0]] == list(range(1, 11))
    assert all(log == logs[0] for log in logs)


async def test_from_every_number_the_rest_follows_live_and_recorded(
    make_job: Make, worker: Worker
) -> None:
    job = await run(make_job)()
    await run(worker.answer)(*"hello, world")
    whole = await read(job)
    for after in range(len(whole) + 1):
        assert await read(job, after) == whole[after:]
    assert await read(job, 10**9) == []
    await run(Keeper().collect)()
    for after in range(len(whole) + 1):  # this row was read before the end: log from Redis
        assert await read(job, after) == whole[after:]
    await run(job.refresh_from_db)()
    events = [e.event for e in whole]
    for after in range(len(whole) + 1):
        assert [e.event for e in await read(job, after)] == events[after:]
    assert await read(job, 10**9) == []


async def test_a_log_that_expires_under_a_reader_is_read_on_from_the_row(
    make_job: Make, worker: Worker
) -> None:
    job = await run(make_job)()
    await run(worker.answer)(*"hello")
    whole = await read(job)
    await run(Keeper().collect)()
    await run(links.client().flushall)()
    assert [e.event for e in await read(job, 3)] == [e.event for e in whole[3:]]


async def test_random_cuts_by_many_readers_never_lose_or_repeat(
    make_job: Make, worker: Worker
) -> None:
    """R7 on the reader: 300 cuts while the log grows, every reading left in the middle."""
    rng = random.Random(11)
    job = await run(make_job)()
    await run(worker.claim)()
    cuts = 0

    async def patchwork() -> list[Entry]:
        nonlocal cuts
        got: list[Entry] = []
        while not got or not got[-1].terminal:
            part = await read(job, len(got), rng.randint(1, 6))
            cuts += 1
            got += part
        return got

    readers = [asyncio.create_task(patchwork()) for _ in range(5)]
    for index in range(200):
        await run(worker.say)(str(index))
    await run(worker.finish)()
    logs = await asyncio.gather(*readers)
    assert [e.seq for e in logs[0]] == list(range(1, 203))
    assert all(log == logs[0] for log in logs)
    assert cuts >= 250


async def test_readers_that_are_cancelled_leave_no_poisoned_connection(
    make_job: Make, worker: Worker
) -> None:
    rng = random.Random(5)
    job = await run(make_job)()
    await run(worker.claim)()
    for _ in range(60):
        tasks = [asyncio.create_task(read(job, rng.randint(0, 3))) for _ in range(4)]
        await asyncio.sleep(rng.random() * 0.02)
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=1)
        assert not pending, "a cancellation was swallowed"
    await run(worker.say)("a")
    await run(worker.finish)()
    assert [e.seq for e in await read(job)] == [1, 2, 3]
    assert not tail.hub()._tails


async def test_a_slow_reader_costs_bounded_memory_and_still_gets_all(
    make_job: Make, worker: Worker
) -> None:
    job = await run(make_job)()
    await run(worker.claim)()
    async with asyncio.timeout(30), aclosing(reader.events(job)) as items:
        first = await anext(items)
        fast = asyncio.create_task(read(job))
        for index in range(50):
            await run(worker.say)(*(f"{index} {i}" for i in range(10)))
        await run(worker.finish)()
        assert len(await fast) == 502
        kept = tail.hub()._tails[job.pk.hex]
        assert len(kept._entries) <= tail.BUFFER_ENTRIES
        rest = [item async for item in items if isinstance(item, Entry)]
    assert [e.seq for e in (first, *rest)] == list(range(1, 503))  # type: ignore[union-attr]


async def test_a_job_added_to_a_blocked_read_is_heard_at_once(
    make_job: Make, worker: Worker
) -> None:
    first = await run(make_job)("first")
    await run(worker.claim)()
    other = asyncio.create_task(read(first))
    await asyncio.sleep(0.3)  # the read is blocked now, for seconds
    second = await run(make_job)("second")
    watching = asyncio.create_task(read(second))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await run(links.queue().cancel)(second.pk.hex)
    assert [e.event.type for e in await watching] == ["cancelled"]
    assert time.monotonic() - began < 0.25
    await run(worker.finish)()
    await other


async def test_reading_begins_again_after_nobody_has_read_for_a_while(
    make_job: Make, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "LINGER_S", 0.005)
    job = await run(make_job)()
    await run(worker.answer)(*"hello")
    whole = await read(job)
    for pauses in range(30):  # whatever the old feed is at when the new reader comes
        for _ in range(pauses):
            await asyncio.sleep(0.0005)
        assert await read(job) == whole


async def test_the_position_is_told_and_kept_up_to_date(make_job: Make, worker: Worker) -> None:
    ahead = await run(make_job)("ahead")
    job = await run(make_job)("behind")
    watching = asyncio.create_task(notices(job, 2))
    await asyncio.sleep(0.3)
    await run(links.queue().cancel)(ahead.pk.hex)
    assert await watching == [Notice("queued", 2), Notice("queued", 1)]


async def test_loading_and_resuming_are_told(make_job: Make, worker: Worker) -> None:
    job = await run(make_job)()
    await run(links.leases().set_loading)("echo", 0.4)
    assert await notices(job, 1) == [Notice("loading", fraction=0.4)]
    await run(links.leases().end_loading)("echo")
    await run(worker.claim)()
    await run(worker.say)("a")
    watching = asyncio.create_task(notices(job, 1))
    await asyncio.sleep(0.7)  # a live worker that is silent is no news
    assert not watching.done()
    await run(worker.leases.release)("w", crashed=True)
    assert await watching == [Notice("resuming")]


async def test_a_restart_of_redis_is_only_a_pause(
    make_job: Make, worker: Worker, valkey: Valkey
) -> None:
    """The server comes back empty; the worker writes again what it had; nothing repeats."""
    job = await run(make_job)()
    await run(worker.claim)()
    await run(worker.say)("a", "b")
    watching = asyncio.create_task(read(job))
    await asyncio.sleep(0.2)
    await run(valkey.stop)()
    await asyncio.sleep(0.3)
    await run(valkey.start)()
    await run(Job.objects.filter(pk=job.pk).update)(epoch=1000)
    from portal.jobs import dispatch

    again = await run(Job.objects.select_related("team").get)(pk=job.pk)
    await run(dispatch.send)(again)
    worker.made = 0
    await run(worker.claim)()
    await run(worker.say)("a", "b", "c")
    await run(worker.finish)()
    entries = await watching
    assert [e.seq for e in entries] == [1, 2, 3, 4, 5]
    texts = [e.event.text for e in entries if isinstance(e.event, Delta)]
    assert texts == ["a", "b", "c"]


async def test_entries_are_never_merged_when_they_come_in_one_batch(
    make_job: Make, worker: Worker
) -> None:
    job = await run(make_job)()
    claimed = await run(worker.claim)()
    events = [Delta(first=i, token_ids=(i,), text="x") for i in range(300)]
    await run(worker.log.append)([Append(claimed.id, claimed.epoch, 2, events)], worker="w")
    worker.seq, worker.made = 301, 300
    watching = asyncio.create_task(read(job))
    await run(worker.finish)()
    assert [e.seq for e in await watching] == list(range(1, 303))


@pytest.mark.parametrize("after", [0, 2])
async def test_a_deleted_job_ends_its_readers(make_job: Make, worker: Worker, after: int) -> None:
    job = await run(make_job)()
    await run(links.queue().forget)(job.pk.hex, 0)
    await run(Job.objects.filter(pk=job.pk).delete)()
    assert await read(job, after) == []


async def test_a_page_made_between_the_end_and_its_recording_hears_of_the_end(
    make_job: Make, worker: Worker
) -> None:
    """It shows what was said and reads on from there: the end must still be to come."""
    job = await in_thread(make_job)()
    await in_thread(worker.answer)("all ", "of it")
    shown = await in_thread(selectors.said)(job)
    assert shown.text == "all of it"
    rest = await read(job, shown.last_seq)
    assert [entry.event.type for entry in rest] == ["finished"]
