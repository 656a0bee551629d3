"""A job is reserved, written and queued, once for each key."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from inference_workers.queue import FairQueue
from portal.accounts.models import User
from portal.jobs import dispatch, links
from portal.jobs.errors import IdempotencyConflict, ModelUnavailable, QueueFull, Unavailable
from portal.jobs.inputs import ChatInput, TextInput
from portal.jobs.models import Job
from portal.jobs.services import Draft, create_job, prepare_job, submit_job
from portal.teams.models import Team
from portal.teams.services import anonymous_team
from portal.usage.models import Reservation
from portal.usage.services import OverBudget, set_budget

Make = Callable[..., Job]


def test_the_worst_case_is_reserved_and_the_job_is_queued(make_job: Make, team: Team) -> None:
    job = make_job("hello", sampling={"max_tokens": 8, "n": 3})
    held = Reservation.objects.get(job_id=job.pk)
    assert (held.tokens, held.team) == (len(job.input_ids) + 24, team)
    claim = FairQueue(links.client())
    assert claim.position(job.pk.hex) == 1
    assert 0 <= job.seed < 2**63


def test_making_a_job_takes_seven_statements(make_job: Make, django_assert_num_queries) -> None:
    """Model and month are read; job, month and reservation are written between BEGIN and COMMIT."""
    make_job()  # the month's first makes its row
    with django_assert_num_queries(7):
        make_job()


def test_what_is_written_is_what_the_job_says(make_job: Make, team: Team) -> None:
    """Through every field's own way into the database and out again."""
    bias = {"max_tokens": 8, "logit_bias": {"7": -1.5}, "stop": ["'%s\u2028"]}
    job = make_job("caf\u00e9 %", sampling=bias, seed=2**63 - 1, idempotency_key="once")
    written = Job.objects.get(pk=job.pk)
    assert [
        (field.name, getattr(written, field.attname))
        for field in Job._meta.concrete_fields
        if getattr(written, field.attname) != _as_json(getattr(job, field.attname))
    ] == []
    assert written.queued_at == job.queued_at
    job.reason = "changed"
    job.save()  # as a row that is there already
    assert Job.objects.get().reason == "changed"
    held = Reservation.objects.get()
    assert (held.job_id, held.team, held.model, held.source) == (job.pk, team, "echo", "test")


def _as_json(value: object) -> object:
    """What JSON makes of tuples and of numbers as names."""
    return json.loads(json.dumps(value)) if isinstance(value, tuple | list | dict) else value


def test_two_jobs_get_two_seeds_and_a_given_one_is_kept(make_job: Make) -> None:
    assert make_job().seed != make_job().seed
    assert make_job(seed=7).seed == 7


def test_a_base_model_gets_a_transcript_with_its_stops(make_job: Make) -> None:
    said = [{"role": "user", "content": "hi"}]
    job = make_job(input=ChatInput(said), sampling={"stop": ["END"]})
    assert bytes(i for i in job.input_ids if i < 256).decode() == "User: hi\nAssistant:"
    assert job.sampling["stop"][0] == "END"
    assert "\nUser:" in job.sampling["stop"]


def test_prompts_are_salted_by_team_or_by_visitor(make_job: Make) -> None:
    visitors = anonymous_team()
    one = make_job(team=visitors, user=None, session="one")
    two = make_job(team=visitors, user=None, session="two")
    ours = make_job(prefixes=[("app", 3)])
    assert one.prefixes[0][0] != two.prefixes[0][0]
    assert "one" not in one.prefixes[0][0].split(":")
    assert [length for _, length in ours.prefixes] == [3, len(ours.input_ids) - 3]
    assert (dispatch.describe(ours).pinned, dispatch.describe(one).pinned) == (3, 0)


def test_the_same_key_gives_the_same_job_and_another_request_is_told(make_job: Make) -> None:
    first = make_job(idempotency_key="k")
    assert make_job(idempotency_key="k").pk == first.pk
    with pytest.raises(IdempotencyConflict):
        make_job("another", idempotency_key="k")


def test_visitors_keys_do_not_meet(make_job: Make) -> None:
    visitors = anonymous_team()
    given = {"team": visitors, "user": None, "idempotency_key": "k"}
    assert make_job(**given, session="one").pk != make_job(**given, session="two").pk


def test_a_hundred_at_once_with_one_key_make_one_job(
    make_job: Make, team: Team, member: User
) -> None:
    """R13."""

    def submit(_: int) -> object:
        try:
            return create_job(
                team=team, user=member, source="test", model="echo", input=TextInput("hello"),
                sampling={"max_tokens": 8}, idempotency_key="once",
            ).pk  # fmt: skip
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(submit, range(100)))
    assert len(made) == 1
    assert Job.objects.count() == Reservation.objects.count() == 1
    assert links.queue().depth("echo") == 1


def test_one_key_makes_one_job_when_all_were_looked_at_before_any_was_written(
    make_job: Make, team: Team, member: User
) -> None:
    """What a hundred at once meet only now and then: the table refuses the second row."""

    def draft() -> Draft:
        made = prepare_job(
            team=team, user=member, source="test", model="echo", input=TextInput("hello"),
            sampling={"max_tokens": 8}, idempotency_key="once",
        )  # fmt: skip
        assert isinstance(made, Draft)
        return made

    drafts = [draft() for _ in range(4)]
    assert {submit_job(one).pk for one in drafts} == {drafts[0].job.pk}
    assert Job.objects.count() == Reservation.objects.count() == 1
    assert links.queue().depth("echo") == 1


def test_the_key_counts_even_when_the_winner_took_the_last_of_the_budget(
    make_job: Make, team: Team
) -> None:
    set_budget(team=team, monthly_tokens=14)
    first = make_job("hello", idempotency_key="k")
    assert make_job("hello", idempotency_key="k").pk == first.pk
    with pytest.raises(OverBudget):
        make_job("hello")
    assert Job.objects.count() == 1


def test_a_full_queue_refuses_and_says_when_to_come_back(make_job: Make, settings) -> None:
    settings.LLMASOS = settings.LLMASOS.model_copy(update={"queue_limit": 2})
    make_job()
    make_job()
    with pytest.raises(QueueFull) as refusal:
        make_job()
    assert refusal.value.retry_after >= 1
    assert Job.objects.count() == 2


def test_a_model_that_no_worker_has_room_for_is_refused_with_the_remedy(make_job: Make) -> None:
    links.queue().set_unplaced({"echo"}, 10)
    with pytest.raises(ModelUnavailable, match="models place MODEL off"):
        make_job()
    assert not Job.objects.exists()
    links.queue().set_unplaced((), 10)
    assert make_job().state == Job.State.OPEN


def test_without_redis_the_request_is_refused_and_nothing_is_written(
    make_job: Make, valkey
) -> None:
    valkey.stop()
    try:
        with pytest.raises(Unavailable):
            make_job()
        assert not Job.objects.exists()
    finally:
        valkey.start()


def test_a_broker_that_fails_does_not_fail_the_request(
    make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portal.celery import app

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr(app, "send_task", fail)
    assert links.queue().position(make_job().pk.hex) == 1
