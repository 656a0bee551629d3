"""What is in the catalogue, what takes jobs, and what may leave it."""

from __future__ import annotations

import pytest
from auditlog.models import LogEntry
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from portal.accounts.models import User
from portal.catalogue.builtin import BUILTIN
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import (
    NotPlaced,
    NotReady,
    UnknownModel,
    get,
    servable,
    tokenizer,
    visible_models,
)
from portal.catalogue.services import (
    BadModel,
    InUse,
    add_model,
    place,
    remove_model,
    sync_builtin,
)
from portal.jobs.models import Job
from portal.teams.models import Team


@pytest.mark.parametrize(
    "name", ["", "UPPER", "../etc", "a/b", "-x", ".x", "a b", "ä", "x" * 65, "a\n", "a\0"]
)
def test_a_bad_id_is_refused_by_name(db: None, name: str) -> None:
    with pytest.raises(BadModel, match="id"):
        add_model(model_id=name, source="echo", kind="base")


@pytest.mark.parametrize(
    "source",
    ["", "http://x", "hub:a", "hub:a/b/c", "pypi:", "relative/path", "/a/../b", "pickle:x"],
)
def test_a_bad_source_is_refused(db: None, source: str) -> None:
    with pytest.raises(BadModel, match="source"):
        add_model(model_id="mine", source=source, kind="base")


def test_a_bad_kind_or_a_second_of_the_same_name_is_refused(db: None) -> None:
    with pytest.raises(BadModel, match="kind"):
        add_model(model_id="mine", source="echo", kind="chatty")
    add_model(model_id="mine", source="hub:a/b@main", kind="base")
    with pytest.raises(BadModel, match="already"):
        add_model(model_id="mine", source="echo", kind="base")


def test_every_builtin_would_pass_as_an_addition(db: None) -> None:
    for entry in BUILTIN:
        model = add_model(model_id=entry.id, source=entry.source, kind=entry.kind)
        model.full_clean(exclude=["licence_url"])
        assert entry.licence[1].startswith("https://")


def test_a_prepared_and_placed_model_takes_jobs(echo: CatalogueModel) -> None:
    assert servable("echo") == echo
    assert list(visible_models()) == [echo]
    assert tokenizer("echo").count("hi") == 2


def test_a_model_that_is_off_or_absent_says_how_to_change_that(echo: CatalogueModel) -> None:
    place(model=echo, placement="off")
    with pytest.raises(NotPlaced, match="models place echo"):
        servable("echo")
    with pytest.raises(NotReady, match="models prepare gemma-3-270m"):
        servable("gemma-3-270m")
    assert not visible_models().exists()


@pytest.mark.django_db
@given(st.text(max_size=80))
def test_any_other_name_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModel):
        servable(name)


def test_an_unprepared_model_can_not_be_placed(db: None) -> None:
    sync_builtin()
    with pytest.raises(BadModel, match="models prepare opt-125m"):
        place(model=get("opt-125m"), placement="always")


class TestRemoving:
    def test_a_placed_model_stays(self, echo: CatalogueModel) -> None:
        with pytest.raises(InUse, match="place echo off"):
            remove_model(model=echo)
        assert get("echo")

    def test_a_model_with_waiting_jobs_stays(self, echo: CatalogueModel, team: Team) -> None:
        place(model=echo, placement="off")
        job = Job.objects.create(
            team=team, source="test", model=echo, input_ids=[1], sampling={}, seed=1
        )
        with pytest.raises(InUse, match="1 jobs"):
            remove_model(model=echo)
        Job.objects.filter(pk=job.pk).update(state=Job.State.FINISHED)
        remove_model(model=echo)
        job.refresh_from_db()
        assert job.model_id == "echo"

    def test_a_removed_model_is_unknown_and_can_be_added_again(
        self, echo: CatalogueModel, operator: User
    ) -> None:
        place(model=echo, placement="off", actor=operator)
        remove_model(model=echo, actor=operator)
        sync_builtin()
        with pytest.raises(UnknownModel):
            servable("echo")
        assert add_model(model_id="echo", source="echo", kind="base").state == "absent"
        actions = LogEntry.objects.filter(object_pk="echo", actor=operator)
        assert actions.count() == 2


def test_the_page_shows_what_can_be_used_and_what_could_be(
    client: Client, echo: CatalogueModel
) -> None:
    answer = client.get("/models/")
    assert [model.pk for model in answer.context["usable"]] == ["echo"]
    assert "gemma-3-270m" in {model.pk for model in answer.context["others"]}
    assert "Gemma Terms of Use" in answer.content.decode()


def test_where_files_lie_on_this_server_is_shown_to_operators_alone(
    client: Client, operator: User
) -> None:
    add_model(model_id="mine", source="/srv/secret/mine", kind="base")
    assert "/srv/secret" not in client.get("/models/").content.decode()
    client.force_login(operator, "django.contrib.auth.backends.ModelBackend")
    assert "/srv/secret" in client.get("/models/").content.decode()
