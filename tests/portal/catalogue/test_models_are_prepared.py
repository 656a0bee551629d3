"""Preparing runs in its own process, says how far it is, and leaves no half state behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from portal.catalogue import preparation
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import get, prepared_folder, tokenizer
from portal.catalogue.services import (
    Busy,
    add_model,
    begin_preparing,
    fail_preparing,
    finish_preparing,
    place,
    sync_builtin,
    touch,
)

State = CatalogueModel.State


@pytest.fixture
def parrot(db: None) -> Iterator[CatalogueModel]:
    """A model of our own whose weights are the echo model's."""
    model = add_model(model_id="parrot", source="echo", kind="base", name="Parrot")
    yield model
    shutil.rmtree(prepared_folder(model), ignore_errors=True)


def quiet(fraction: float, message: str) -> None:
    pass


def test_preparing_makes_the_folder_and_notes_what_it_is(parrot: CatalogueModel) -> None:
    seen: list[tuple[float, str]] = []
    model = preparation.prepare(model_id="parrot", progress=lambda *what: seen.append(what))
    manifest = json.loads((prepared_folder(model) / "manifest.json").read_text())
    assert model.state == State.READY
    assert model.digest == manifest["digest"]
    assert (model.family, model.context_length, model.vocab_size) == ("echo", 8192, 258)
    assert seen[-1][0] == 1.0
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    place(model=model, placement="on_demand")
    assert tokenizer("parrot").encode("hi") == [104, 105]


def test_a_source_that_fails_says_why_and_can_be_tried_again(parrot: CatalogueModel) -> None:
    CatalogueModel.objects.update(source="/nowhere/at/all")
    with pytest.raises(preparation.PreparationFailed, match="/nowhere/at/all"):
        preparation.prepare(model_id="parrot", progress=quiet)
    assert get("parrot").state == State.FAILED
    assert "/nowhere/at/all" in get("parrot").error
    CatalogueModel.objects.update(source="echo")
    assert preparation.prepare(model_id="parrot", progress=quiet).state == State.READY


def test_two_do_not_prepare_one_model_at_once(parrot: CatalogueModel) -> None:
    begin_preparing(model=parrot)
    with pytest.raises(Busy):
        preparation.prepare(model_id="parrot", progress=quiet)


def test_a_preparation_that_died_is_taken_over(parrot: CatalogueModel) -> None:
    begin_preparing(model=parrot)
    CatalogueModel.objects.update(touched_at=timezone.now() - timedelta(minutes=1))
    assert preparation.prepare(model_id="parrot", progress=quiet).state == State.READY


def test_an_interrupted_preparation_is_not_left_open(parrot: CatalogueModel) -> None:
    def interrupt(fraction: float, message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(model_id="parrot", progress=interrupt)
    assert get("parrot").state == State.FAILED
    assert preparation.prepare(model_id="parrot", progress=quiet).state == State.READY


def test_a_process_that_dies_without_a_word_is_an_error(
    parrot: CatalogueModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(preparation.PreparationFailed, match="ended with 1"):
        preparation.prepare(model_id="parrot", progress=quiet)


def test_late_news_change_nothing(parrot: CatalogueModel, echo_manifest: dict[str, Any]) -> None:
    begin_preparing(model=parrot)
    fail_preparing(model=parrot, error="gone")
    touch(model=parrot, progress=0.5, message="still here")
    assert not finish_preparing(model=parrot, manifest=echo_manifest)
    assert (get("parrot").state, get("parrot").progress) == (State.FAILED, 0.0)


def test_checking_finds_a_changed_file_and_takes_the_model_out(parrot: CatalogueModel) -> None:
    model = preparation.prepare(model_id="parrot", progress=quiet)
    assert preparation.check(model_id="parrot", progress=quiet).pk == "parrot"
    config = prepared_folder(model) / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(preparation.PreparationFailed):
        preparation.check(model_id="parrot", progress=quiet)
    assert get("parrot").state == State.FAILED
    again = preparation.prepare(model_id="parrot", force=True, progress=quiet)
    assert again.state == State.READY
    assert again.digest == model.digest


class TestTheConsole:
    def test_the_licence_is_shown_before_anything_is_fetched(self, parrot: CatalogueModel) -> None:
        CatalogueModel.objects.update(licence="Parrot Licence 1", licence_url="https://example.org")
        out = StringIO()
        call_command("models", "prepare", "parrot", stdout=out, stderr=StringIO())
        assert out.getvalue().startswith("Parrot: Parrot Licence 1 https://example.org\n")
        assert get("parrot").digest in out.getvalue()

    @pytest.mark.parametrize("verb", ["prepare", "check", "remove"])
    def test_an_unknown_model_is_named(self, db: None, verb: str) -> None:
        with pytest.raises(CommandError, match="nothing-like-it"):
            call_command("models", verb, "nothing-like-it", stdout=StringIO(), stderr=StringIO())

    def test_list_shows_every_builtin(self, db: None) -> None:
        out = StringIO()
        call_command("models", "list", stdout=out)
        for name in ("gemma-3-270m", "opt-125m", "bloom-560m", "echo", "smollm2-360m"):
            assert name in out.getvalue()

    def test_it_works_as_a_program_from_nothing(self) -> None:
        """A fresh data folder, a real database, no test settings."""
        data = settings.LLMASOS.data / "fresh"
        environment = {"DATA": str(data), "PATH": "/usr/bin:/bin", "DATABASE_URL": ""}
        for words in ("migrate", "models prepare echo", "models place echo always", "models list"):
            done = subprocess.run(
                [sys.executable, "manage.py", *words.split()],
                capture_output=True,
                text=True,
                env=environment,
                cwd=settings.BASE_DIR,
            )
            assert done.returncode == 0, done.stderr
        assert "always" in next(line for line in done.stdout.splitlines() if "echo" in line)


def test_builtin_entries_come_back_only_where_nobody_changed_anything(db: None) -> None:
    assert "gemma-3-270m" in sync_builtin()
    assert sync_builtin() == []
    CatalogueModel.objects.filter(pk="gemma-3-270m").update(placement="off", licence="stale")
    CatalogueModel.objects.filter(pk="opt-125m").update(removed_at=timezone.now())
    CatalogueModel.objects.filter(pk="echo").update(state="ready", digest="x", source="/mine")
    sync_builtin()
    assert get("gemma-3-270m").placement == "off"
    assert get("gemma-3-270m").licence.startswith("Gemma")
    assert get("echo").source == "/mine"
    assert not CatalogueModel.objects.filter(pk="opt-125m", removed_at=None).exists()
