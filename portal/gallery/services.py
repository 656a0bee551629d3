"""Writes to the gallery: running an app."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import transaction

from inference_workers.contract import Sampling
from portal.accounts.models import User
from portal.gallery import builders, selectors
from portal.gallery.definition import Definition
from portal.gallery.models import App, AppRun, RunJob
from portal.jobs import services as jobs
from portal.jobs.inputs import ChatInput, Input, TextInput
from portal.jobs.models import Job
from portal.teams.models import Team

SCORING = Sampling(max_tokens=0, temperature=0.0, prompt_logprobs=0)
"""Nothing is generated: the model reads prompt and label and says how likely each token was."""


class NotRunnable(Exception):
    """The app has no version to run."""


def run_app(*, app: App, team: Team, user: User | None, session: str, inputs: Any) -> AppRun:
    """Run an app's current version: a job, or one for each label that is scored.

    Raises:
        InvalidInput: an input is missing or wrong.
        NotRunnable: nothing is published yet.
        JobRefused, OverBudget: the portal refuses the work.
    """
    version = app.current
    if version is None:
        raise NotRunnable(app.slug)
    definition = Definition.model_validate(version.definition)
    checked = definition.check(inputs)
    drafts = [
        (label, jobs.prepare_job(
            team=team,
            user=user,
            session=session,
            source=f"app:{app.slug}@{version.number}",
            model=model_of(definition),
            input=given,
            sampling=sampling,
            shared=shared,
        ))
        for label, given, sampling, shared in _work(definition, checked)
    ]  # fmt: skip
    with transaction.atomic():  # all of a run's jobs or none
        run = AppRun.objects.create(
            version=version,
            team=team,
            user=user,
            session=session,
            kind=definition.result,
            inputs=checked,
        )
        RunJob.objects.bulk_create(
            RunJob(run=run, job=_submitted(draft), label=label, position=position)
            for position, (label, draft) in enumerate(drafts)
        )
    return run


def _submitted(draft: jobs.Draft | Job) -> Job:
    return jobs.submit_job(draft) if isinstance(draft, jobs.Draft) else draft


def model_of(definition: Definition) -> str:
    """The id of the model that the app runs on."""
    return definition.model or settings.LLMASOS.default_model


Work = tuple[str, Input, Sampling, str]
"""Label (empty for text), input and sampling of a job, and what its app's prompts begin with."""


def _work(definition: Definition, inputs: dict[str, str]) -> list[Work]:
    if definition.result == "scores":
        asked = builders.question(definition, inputs)
        return [
            (label, TextInput(asked.prompt + words), SCORING, "")
            for label, words in zip(asked.labels, asked.continuations, strict=True)
        ]
    prompt = builders.prompt(definition, inputs)
    sampling = definition.sampling.model_copy(update={"max_tokens": prompt.max_tokens})
    if selectors.follows_instructions(model_of(definition)):
        return [("", ChatInput(prompt.messages()), sampling, "")]
    sampling = sampling.model_copy(update={"stop": prompt.stop})
    return [("", TextInput(prompt.text), sampling, prompt.shown)]
