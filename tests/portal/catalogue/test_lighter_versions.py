"""Lighter versions are made in the background, one at a time, and show what they save and cost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from redis import Redis

from inference_workers.contract import PORTAL_QUEUE
from portal.accounts.models import User
from portal.catalogue import lighter, preparation
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import UnknownModel, get, prepared_folder
from portal.catalogue.services import (
    BadModel,
    Busy,
    InUse,
    add_model,
    begin_preparing,
    finish_preparing,
    place,
)
from portal.catalogue.tasks import make_lighter
from tests.inference_workers.model_files import write_llama

State = CatalogueModel.State
AfterCommit = Callable[..., Any]
FIGURES = {
    "digest": "sha256:" + "1" * 64,
    "memory": 300_000_000,
    "speed": {"1": 30.0, "16": 120.0},
    "perplexity": {"en": 20.0, "zh": 10.0},
    "tokens": 100,
}


@pytest.fixture
def origin(db: None, echo_manifest: dict[str, Any]) -> CatalogueModel:
    """A model that says that it is ready; nothing lies on the disk."""
    model = add_model(model_id="parrot", source="/nowhere", kind="base", licence="Parrot Licence")
    begin_preparing(model=model)
    manifest = echo_manifest | {"digest": FIGURES["digest"], "bytes": 500_000_000}
    finish_preparing(model=model, manifest=manifest | {"parameters": 250_000_000})
    return get("parrot")


@pytest.fixture
def at_work(client: Client, operator: User) -> Client:
    client.force_login(operator)
    return client


def made(origin: CatalogueModel, name: str = "parrot-int4") -> CatalogueModel:
    """A lighter version as if it had been made and measured."""
    model = lighter.enter(origin_id=origin.pk, target="int4", model_id=name)
    digest = "sha256:" + "2" * 64
    perplexity = {"en": 20.5, "zh": 10.0}
    CatalogueModel.objects.filter(pk=origin.pk).update(figures=FIGURES)
    CatalogueModel.objects.filter(pk=model.pk).update(
        state=State.READY,
        digest=digest,
        bytes=200_000_000,
        figures=FIGURES | {"digest": digest, "perplexity": perplexity, "bits": 5.32},
    )
    return get(name)


class TestAsking:
    def test_it_makes_an_entry_that_says_what_it_comes_from(
        self, origin: CatalogueModel, operator: User
    ) -> None:
        model = lighter.enter(origin_id="parrot", target="int4", actor=operator)
        assert (model.pk, model.origin, model.format) == ("parrot-int4", origin, "int4")
        assert (model.licence, model.kind, model.source) == ("Parrot Licence", "base", "/nowhere")
        assert (model.state, model.placement) == (State.PREPARING, "off")
        assert LogEntry.objects.filter(object_pk="parrot-int4", actor=operator).exists()

    def test_a_longest_name_still_gives_a_name(self) -> None:
        assert len(lighter.default_id("x" * 64, "int4")) == 64

    @pytest.mark.parametrize("target", ["", "int2", "fp32"])
    def test_another_format_is_refused(self, origin: CatalogueModel, target: str) -> None:
        with pytest.raises(BadModel, match="int8 or int4"):
            lighter.enter(origin_id="parrot", target=target)

    def test_an_unknown_or_unprepared_model_or_a_taken_name_is_refused(
        self, origin: CatalogueModel
    ) -> None:
        with pytest.raises(UnknownModel, match="nothing-like-it"):
            lighter.enter(origin_id="nothing-like-it", target="int8")
        with pytest.raises(BadModel, match="already"):
            lighter.enter(origin_id="parrot", target="int8", model_id="parrot")
        CatalogueModel.objects.filter(pk="parrot").update(state=State.ABSENT)
        with pytest.raises(BadModel, match="models prepare parrot"):
            lighter.enter(origin_id="parrot", target="int8")

    def test_a_lighter_one_of_a_lighter_one_is_refused(self, origin: CatalogueModel) -> None:
        made(origin)
        with pytest.raises(BadModel, match="Make one of parrot"):
            lighter.enter(origin_id="parrot-int4", target="int4")

    def test_one_is_made_at_a_time_until_it_stops_giving_signs_of_life(
        self, origin: CatalogueModel
    ) -> None:
        lighter.enter(origin_id="parrot", target="int4")
        for target in lighter.FORMATS:
            with pytest.raises(Busy, match="parrot-int4"):
                lighter.enter(origin_id="parrot", target=target)
        old = timezone.now() - timedelta(minutes=1)
        CatalogueModel.objects.filter(pk="parrot-int4").update(touched_at=old)
        assert get("parrot-int4").stalled
        assert not lighter.enter(origin_id="parrot", target="int4").stalled

    def test_it_is_sent_to_the_tasks_after_commit(
        self,
        origin: CatalogueModel,
        redis: Redis,
        django_capture_on_commit_callbacks: AfterCommit,
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            lighter.start(origin_id="parrot", target="int8")
        assert redis.llen(PORTAL_QUEUE) == 1
        assert get("parrot-int8").state == State.PREPARING

    def test_a_queue_that_does_not_answer_is_an_error_with_a_remedy(
        self,
        origin: CatalogueModel,
        monkeypatch: pytest.MonkeyPatch,
        django_capture_on_commit_callbacks: AfterCommit,
    ) -> None:
        def unreachable(*args: Any, **options: Any) -> None:
            raise ConnectionError

        monkeypatch.setattr(lighter.app, "send_task", unreachable)
        with django_capture_on_commit_callbacks(execute=True):
            lighter.start(origin_id="parrot", target="int8")
        assert get("parrot-int8").state == State.FAILED
        assert "Try again" in get("parrot-int8").error


class TestMaking:
    @pytest.fixture
    def llama(self, db: None, tmp_path: Path) -> Iterator[CatalogueModel]:
        """A real model of 200,000 parameters, prepared by the real command."""
        source = str(write_llama(tmp_path / "llama"))
        add_model(model_id="little", source=source, kind="base")
        model = preparation.prepare(model_id="little", progress=lambda *news: None)
        yield model
        for name in ("little", "little-int4"):
            shutil.rmtree(prepared_folder(model).parent / name, ignore_errors=True)

    def test_the_command_packs_and_measures(self, llama: CatalogueModel) -> None:
        out = StringIO()
        call_command(
            "models", "quantize", "little", "--format", "int4", stdout=out, stderr=StringIO()
        )
        model = get("little-int4")
        assert model.state == State.READY
        assert model.bytes < llama.bytes
        assert model.measured
        assert get("little").measured
        assert set(model.figures["speed"]) == {"1", "16"}
        assert set(model.perplexity_change) == {"en", "zh"}
        assert "little-int4 is ready" in out.getvalue()
        assert "models place little-int4" in out.getvalue()
        place(model=model, placement="on_demand")
        with pytest.raises(CommandError, match="already"):
            call_command("models", "quantize", "little", "--format", "int4", stdout=StringIO())

    def test_what_can_not_be_packed_fails_with_the_reason_and_can_be_removed(
        self, echo: CatalogueModel
    ) -> None:
        lighter.enter(origin_id="echo", target="int8")
        make_lighter("echo-int8")
        model = get("echo-int8")
        assert model.state == State.FAILED
        assert "lean family" in model.error
        make_lighter("echo-int8")  # a message that comes twice
        lighter.discard(model=model)
        with pytest.raises(UnknownModel):
            get("echo-int8")
        assert get("echo").state == State.READY


class TestFigures:
    def test_changes_are_against_the_origin(self, origin: CatalogueModel) -> None:
        model = made(origin)
        assert model.size_change == pytest.approx(-60)
        assert model.perplexity_change == pytest.approx({"en": 2.5, "zh": 0.0})

    def test_figures_of_other_weights_or_other_texts_are_not_compared(
        self, origin: CatalogueModel
    ) -> None:
        model = made(origin)
        CatalogueModel.objects.filter(pk="parrot").update(figures=FIGURES | {"tokens": 7})
        assert get(model.pk).perplexity_change == {}
        CatalogueModel.objects.filter(pk="parrot").update(figures=FIGURES, digest="sha256:3")
        assert get(model.pk).perplexity_change == {}

    def test_a_removed_one_takes_its_figures_along(self, origin: CatalogueModel) -> None:
        model = made(origin)
        place(model=model, placement="always")
        with pytest.raises(InUse):
            lighter.discard(model=model)
        place(model=model, placement="off")
        lighter.discard(model=model)
        assert get("parrot").lighter_versions == []
        again = add_model(model_id="parrot-int4", source="echo", kind="base")
        assert (again.origin, again.figures) == (None, {})


class TestThePage:
    def test_everybody_sees_the_figures_and_only_operators_the_buttons(
        self, client: Client, origin: CatalogueModel, member: User, operator: User
    ) -> None:
        made(origin)
        client.force_login(member)
        page = client.get("/models/").content.decode()
        shown = ("parrot-int4", "200 MB", "300 MB", "-60 %", "+2.50 %", "30 tokens/s", "Made from")
        for words in (*shown, "5.3 bits a weight in its layers"):
            assert words in page, words
        assert "Make a lighter version" not in page
        client.force_login(operator)
        assert "Make a lighter version" in client.get("/models/").content.decode()

    @pytest.mark.parametrize("path", ["/models/parrot/lighter/", "/models/parrot-int4/remove/"])
    def test_for_others_there_is_nothing_to_operate(
        self, client: Client, origin: CatalogueModel, member: User, path: str
    ) -> None:
        made(origin)
        assert client.post(path, {"format": "int8"}).status_code == 404
        client.force_login(member)
        assert client.post(path, {"format": "int8"}).status_code == 404
        assert get("parrot-int4").state == State.READY

    def test_a_button_starts_it_and_a_second_press_says_that_it_runs(
        self, at_work: Client, origin: CatalogueModel, redis: Redis
    ) -> None:
        assert at_work.post("/models/parrot/lighter/", {"format": "int8"}).status_code == 302
        assert get("parrot-int8").state == State.PREPARING
        again = at_work.post("/models/parrot/lighter/", {"format": "int4"})
        assert again.status_code == 409
        assert "being made already" in again.content.decode()

    def test_a_bad_format_or_an_unknown_model_is_answered(
        self, at_work: Client, origin: CatalogueModel
    ) -> None:
        assert at_work.post("/models/parrot/lighter/", {"format": "x"}).status_code == 422
        assert at_work.post("/models/nothing/lighter/", {"format": "int8"}).status_code == 404
        assert at_work.post("/models/parrot/remove/").status_code == 404

    def test_progress_is_asked_for_until_it_has_ended(
        self, client: Client, origin: CatalogueModel
    ) -> None:
        lighter.enter(origin_id="parrot", target="int4")
        CatalogueModel.objects.filter(pk="parrot-int4").update(progress=0.5, message="Packing")
        running = client.get("/models/parrot-int4/part/")
        assert 'hx-trigger="every 2s"' in running.content.decode()
        assert 'value="0.500"' in running.content.decode()
        assert "HX-Refresh" not in running.headers
        CatalogueModel.objects.filter(pk="parrot-int4").update(state=State.FAILED, error="why")
        ended = client.get("/models/parrot-int4/part/")
        assert ended.headers["HX-Refresh"] == "true"
        assert "why" not in ended.content.decode()

    def test_an_interrupted_one_says_so_and_can_be_tried_again(
        self, at_work: Client, origin: CatalogueModel
    ) -> None:
        lighter.enter(origin_id="parrot", target="int4")
        old = timezone.now() - timedelta(minutes=1)
        CatalogueModel.objects.filter(pk="parrot-int4").update(touched_at=old)
        page = at_work.get("/models/").content.decode()
        assert "it was interrupted" in page
        assert "Try again" in page

    def test_an_operator_removes_one(self, at_work: Client, origin: CatalogueModel) -> None:
        place(model=made(origin), placement="always")
        assert at_work.post("/models/parrot-int4/remove/").status_code == 409
        place(model=get("parrot-int4"), placement="off")
        assert at_work.post("/models/parrot-int4/remove/").status_code == 302
        assert get("parrot").lighter_versions == []
