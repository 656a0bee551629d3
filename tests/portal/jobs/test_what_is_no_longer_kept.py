"""A team's prompts and answers go when it no longer keeps them; figures and bills stay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from redis import Redis

from inference_workers.contract import Entry, Failed
from portal.conversations import retention as conversations
from portal.conversations.models import Conversation, Message
from portal.jobs import links, retention
from portal.jobs.keeper import Keeper
from portal.jobs.models import Job
from portal.jobs.reader import Notice, events
from portal.responses.models import Response
from portal.responses.services import create_response
from portal.teams.models import Team
from portal.teams.services import set_retention
from portal.threads import in_thread
from portal.usage.models import UsageHour
from tests.portal.jobs.conftest import Worker

pytestmark = pytest.mark.django_db(transaction=True)
MakeJob = Callable[..., Job]


def ended(worker: Worker, make_job: MakeJob, *, days_ago: float = 0, **given: Any) -> Job:
    """A recorded job that ended so long ago."""
    job = make_job("a secret prompt", **given)
    worker.made = 0
    worker.answer("a secret ", "answer")
    Keeper().collect()
    at = timezone.now() - timedelta(days=days_ago)
    Job.objects.filter(pk=job.pk).update(recorded_at=at)
    job.refresh_from_db()
    assert job.log
    return job


def is_kept(job: Job) -> bool:
    job.refresh_from_db()
    content = [job.input_ids, job.log, job.sampling, job.request_digest]
    assert any(content) == (job.dropped_at is None)
    return job.dropped_at is None


async def read(job: Job) -> list[Entry | Notice]:
    return [item async for item in events(job)]


def test_what_is_old_goes_and_what_is_young_stays(
    worker: Worker, make_job: MakeJob, team: Team
) -> None:
    old = ended(worker, make_job, days_ago=8, idempotency_key="again")
    young = ended(worker, make_job, days_ago=6)
    assert not retention.drop_old()
    assert is_kept(old), "the team says nothing, so all is kept"
    set_retention(team=team, days=7)
    assert not retention.drop_old()
    assert not is_kept(old)
    assert is_kept(young)
    assert (old.state, old.completion_tokens) == (Job.State.FINISHED, 2)
    assert UsageHour.objects.get().jobs == 2
    assert old.idempotency_key == ""


def test_an_open_job_is_left_alone(make_job: MakeJob, team: Team) -> None:
    job = make_job()
    Job.objects.update(queued_at=timezone.now() - timedelta(days=99))
    set_retention(team=team, days=1)
    retention.drop_old()
    retention.drop([job.pk])
    assert is_kept(job)


def test_it_goes_in_bounded_batches(
    worker: Worker, make_job: MakeJob, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    jobs = [ended(worker, make_job, days_ago=3) for _ in range(3)]
    set_retention(team=team, days=1)
    assert retention.drop_old(), "one is left"
    assert sum(is_kept(job) for job in jobs) == 1
    assert not retention.drop_old()
    assert not any(is_kept(job) for job in jobs)


def test_a_response_goes_with_its_job(worker: Worker, make_job: MakeJob, team: Team) -> None:
    old = ended(worker, make_job, days_ago=8)
    young = ended(worker, make_job, days_ago=6)
    going = make_job()
    for job in (old, young, going):
        create_response(
            draft=job, previous=None, background=False, request={},
            input=[{"type": "message", "role": "user", "content": "a secret prompt"}],
        )  # fmt: skip
    set_retention(team=team, days=7)
    retention.drop_old()
    retention.drop([going.pk])
    assert not is_kept(old)
    assert set(Response.objects.values_list("pk", flat=True)) == {young.pk, going.pk}


async def test_whoever_asks_for_it_later_is_told(
    worker: Worker, make_job: MakeJob, team: Team
) -> None:
    job = await in_thread(lambda: ended(worker, make_job, days_ago=3))()
    await in_thread(retention.drop)([job.pk])
    await in_thread(job.refresh_from_db)()
    (entry,) = await read(job)
    assert isinstance(entry, Entry)
    assert isinstance(entry.event, Failed)
    assert entry.event.code == "no_longer_kept"


class TestATeamThatKeepsNothing:
    @pytest.fixture(autouse=True)
    def _nothing(self, team: Team) -> None:
        set_retention(team=team, days=0)
        team.refresh_from_db()

    async def test_an_answer_goes_once_it_has_been_read(
        self, worker: Worker, make_job: MakeJob, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "READ_GRACE", timedelta())
        job = await in_thread(lambda: ended(worker, make_job))()
        await in_thread(retention.drop_read)()
        assert await in_thread(is_kept)(job), "nobody has read it"
        heard = await read(job)
        assert len(heard) == 4
        await _until_noted(job)
        await in_thread(retention.drop_read)()
        assert not await in_thread(is_kept)(job)
        assert redis.ttl(links.queue().keys.job(job.pk.hex)) <= retention.REDIS_SECONDS

    async def test_reading_half_of_it_is_not_reading_it(
        self, worker: Worker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "READ_GRACE", timedelta())
        job = await in_thread(lambda: ended(worker, make_job))()
        async for _ in events(job):
            break
        await in_thread(retention.drop_read)()
        assert await in_thread(is_kept)(job)

    def test_what_nobody_reads_goes_after_an_hour(self, worker: Worker, make_job: MakeJob) -> None:
        fresh = ended(worker, make_job, days_ago=0.9 / 24)
        stale = ended(worker, make_job, days_ago=1.1 / 24)
        retention.drop_old()
        assert is_kept(fresh)
        assert not is_kept(stale)

    def test_a_conversation_is_kept_while_it_goes_on(
        self, worker: Worker, make_job: MakeJob, team: Team
    ) -> None:
        job = ended(worker, make_job, days_ago=2 / 24)
        talk = Conversation.objects.create(team=team, mode="chat", model="echo")
        Message.objects.create(conversation=talk, role="assistant", job=job)
        conversations.drop_old()
        retention.drop_old()
        assert is_kept(job)
        Conversation.objects.update(updated_at=timezone.now() - timedelta(hours=2))
        conversations.drop_old()
        retention.drop_old()
        assert not Conversation.objects.exists()
        assert not is_kept(job)


async def _until_noted(job: Job) -> None:
    for _ in range(100):
        await in_thread(job.refresh_from_db)()
        if job.read_at is not None:
            return
    raise AssertionError("nobody noted that it was read")


def test_old_words_go_from_a_conversation_that_goes_on(team: Team) -> None:
    set_retention(team=team, days=7)
    talk = Conversation.objects.create(team=team, mode="chat", model="echo")
    old = Message.objects.create(conversation=talk, role="user", text="long ago")
    new = Message.objects.create(conversation=talk, role="user", text="just now")
    eight_days_ago = timezone.now() - timedelta(days=8)
    Message.objects.filter(pk=old.pk).update(created_at=eight_days_ago)
    conversations.drop_old()
    texts = dict(Message.objects.values_list("pk", "text"))
    assert texts == {old.pk: "", new.pk: "just now"}
    Conversation.objects.update(updated_at=eight_days_ago)
    conversations.drop_old()
    assert not Message.objects.exists()
