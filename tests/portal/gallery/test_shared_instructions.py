"""What an app shows its model is computed once for all its callers; what they write never is."""

from __future__ import annotations

import pytest
from redis import Redis

from llmasos.tasks import summarize, translate
from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.gallery import builtin
from portal.gallery.models import App
from portal.gallery.services import run_app
from portal.jobs import dispatch
from portal.jobs.models import Job
from portal.teams.models import Team
from portal.teams.services import anonymous_team


@pytest.fixture
def app(redis: Redis, transactional_db: None, echo: CatalogueModel) -> App:
    """The translator, on the model that the tests have."""
    builtin.sync_builtin()
    app = App.objects.select_related("current").get(slug="translate")
    assert app.current is not None
    app.current.definition["model"] = "echo"
    app.current.save()
    return app


def asked(app: App, text: str, *, team: Team, user: User | None = None, session: str = "") -> Job:
    inputs = {"text": text, "direction": "en-zh"}
    run = run_app(app=app, team=team, user=user, session=session, inputs=inputs)
    (job,) = Job.objects.filter(run_jobs__run=run)
    return job


def test_callers_share_an_apps_instructions_and_nothing_of_their_own(
    app: App, team: Team, member: User
) -> None:
    ours = asked(app, "Good night.", team=team, user=member)
    visitor = asked(app, "Good day.", team=anonymous_team(), session="one")
    (salt, length), (own, rest) = ours.prefixes
    assert salt == "shared:app:translate@1"
    assert visitor.prefixes[0] == [salt, length]
    assert own != visitor.prefixes[1][0]
    assert rest == len(ours.input_ids) - length
    common = bytes(ours.input_ids[:length]).decode()  # echo has a token for each byte
    assert common == translate.prompt("Good night.", "en-zh").shown
    assert bytes(visitor.input_ids[:length]).decode() == common


def test_workers_are_asked_to_keep_them(app: App, team: Team, member: User) -> None:
    job = asked(app, "Good night.", team=team, user=member)
    assert dispatch.describe(job).pinned == job.prefixes[0][1] > 100


def test_another_version_has_a_salt_of_its_own(app: App, team: Team, member: User) -> None:
    first = asked(app, "Good night.", team=team, user=member)
    assert app.current is not None
    app.current.number = 2
    assert asked(app, "Good night.", team=team, user=member).prefixes[0] != first.prefixes[0]


@pytest.mark.parametrize("text", ["Hello.", "你好。"])
def test_a_tasks_text_begins_with_what_it_shows(text: str) -> None:
    for prompt in (translate.prompt(text), summarize.prompt(text)):
        before, _, after = prompt.text.partition(prompt.shown)
        assert before == ""
        assert after.startswith(text)
