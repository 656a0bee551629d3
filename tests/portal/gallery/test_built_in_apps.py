"""Syncing the built-in apps."""

from __future__ import annotations

import pytest

from portal.gallery import builtin
from portal.gallery.builders import SCORERS, WRITERS
from portal.gallery.models import App, AppVersion
from portal.teams.models import Team


@pytest.mark.django_db
def test_syncing_again_changes_nothing() -> None:
    assert len(builtin.sync_builtin()) == len(builtin.BUILT_IN)
    before = set(AppVersion.objects.values_list("pk", flat=True))
    assert builtin.sync_builtin() == []
    assert set(AppVersion.objects.values_list("pk", flat=True)) == before


@pytest.mark.django_db
def test_a_changed_definition_becomes_a_new_version() -> None:
    builtin.sync_builtin()
    old = AppVersion.objects.get(app__slug="translate")
    AppVersion.objects.filter(pk=old.pk).update(definition={"builder": "older"})
    assert builtin.sync_builtin() == ["translate"]
    app = App.objects.select_related("current").get(slug="translate")
    assert app.current is not None
    assert app.current.number == 2
    assert AppVersion.objects.get(pk=old.pk).definition == {"builder": "older"}


@pytest.mark.django_db
def test_it_leaves_another_teams_app_of_the_same_name_alone(team: Team) -> None:
    App.objects.create(
        slug="translate", team=team, author="Research", icon="R", category="other",
        name_en="Ours", name_zh="我们的", description_en="x", description_zh="x",
    )  # fmt: skip
    builtin.sync_builtin()
    assert App.objects.get(slug="translate").name_en == "Ours"


@pytest.mark.parametrize("app", builtin.BUILT_IN, ids=lambda app: app.slug)
def test_a_built_in_app_is_whole(app: builtin.BuiltIn) -> None:
    definition = app.definition
    assert definition.builder in (SCORERS if definition.result == "scores" else WRITERS)
    for example in definition.examples:
        assert definition.check(example)
    if definition.result == "scores":
        asked = SCORERS[definition.builder].question(definition.examples[0])
        assert tuple(label.value for label in definition.labels) == asked.labels
