"""Reads of the gallery. Built-in apps are everybody's; a run is its team's or its visitor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Lower
from redis.exceptions import RedisError

from inference_workers.contract import Delta, Entry, Failed
from portal.catalogue.models import CatalogueModel
from portal.gallery import builders, scoring
from portal.gallery.definition import Definition
from portal.gallery.models import App, AppRun, RunJob
from portal.jobs import links
from portal.jobs import selectors as jobs
from portal.jobs.models import Job
from portal.jobs.viewer import Viewer

SORTS = ("used", "new", "name")
LONGEST_LOG = 100_000


def apps(*, search: str = "", category: str = "", sort: str = "used") -> QuerySet[App]:
    """Apps that can be run, with ``runs`` counted; ``search`` is looked for in both languages."""
    found = App.objects.filter(current__isnull=False).select_related("current")
    if search:
        words = Q()
        for word in search.split()[:8]:
            words &= (
                Q(name_en__icontains=word)
                | Q(name_zh__icontains=word)
                | Q(description_en__icontains=word)
                | Q(description_zh__icontains=word)
            )
        found = found.filter(words)
    if category:
        found = found.filter(category=category)
    counted = found.annotate(runs=Count("versions__runs"))
    if sort == "new":
        return counted.order_by("-created_at", "slug")
    if sort == "name":
        return counted.order_by(Lower("name_en"))
    return counted.order_by(F("runs").desc(), "slug")


def app(slug: str) -> App | None:
    return apps().filter(slug=slug).first()


def run(run_id: Any, viewer: Viewer) -> AppRun | None:
    """The run, if ``viewer`` may see it: all its jobs are the viewer's."""
    found = AppRun.objects.select_related("version__app").filter(pk=run_id).first()
    if found is None:
        return None
    wanted = set(found.run_jobs.values_list("job_id", flat=True))
    return found if wanted and jobs.still_visible(viewer, wanted) == wanted else None


def parts(run: AppRun) -> list[RunJob]:
    return list(run.run_jobs.select_related("job"))


@dataclass(frozen=True, slots=True)
class Score:
    label: str
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Result:
    """``state`` is that of the jobs together: open until all have ended, failed if one has.

    ``text`` is what was written so far; ``scores`` are there once every label is scored, the
    likeliest first.
    """

    state: str
    text: str
    scores: tuple[Score, ...]
    error: str


def result(run: AppRun, language: str) -> Result:
    work = parts(run)
    logs = [_log(part.job) for part in work]
    ends = [_end(part.job, log) for part, log in zip(work, logs, strict=True)]
    state = _together([state for state, _ in ends])
    error = next((message for _, message in ends if message), "")
    if run.kind == AppRun.Kind.TEXT:
        text = "".join(e.event.text for e in logs[0] if isinstance(e.event, Delta))
        if state == Job.State.FINISHED:
            text = builders.WRITERS[definition_of(run).builder].parse(text)
        return Result(state, text, (), error)
    scores = _scores(run, work, logs, language) if state == Job.State.FINISHED else ()
    return Result(state, "", scores, error)


def _log(job: Job) -> list[Entry]:
    """The row's log once it is recorded, Redis' until then."""
    if job.state != Job.State.OPEN:
        return jobs.entries(job)
    try:
        return links.log().read(job.id.hex, count=LONGEST_LOG)
    except (RedisError, OSError):
        return []


def _end(job: Job, log: list[Entry]) -> tuple[str, str]:
    """State and error of a job. Its log knows the end a moment before its row does."""
    if job.state == Job.State.OPEN and log and log[-1].terminal:
        event = log[-1].event
        return event.type, event.message if isinstance(event, Failed) else ""
    return job.state, job.error_message


def _together(states: list[str]) -> str:
    for state in (Job.State.FAILED, Job.State.CANCELLED, Job.State.OPEN):
        if state in states:
            return state
    return Job.State.FINISHED


def _scores(
    run: AppRun, work: list[RunJob], logs: list[list[Entry]], language: str
) -> tuple[Score, ...]:
    definition = definition_of(run)
    likelihoods = scoring.label_scores(
        [part.job.input_ids for part in work], [_prompt_logprobs(log) for log in logs]
    )
    asked = builders.question(definition, run.inputs)
    tone = builders.SCORERS[definition.builder].parse(asked, likelihoods)
    names = {label.value: label.name.pick(language) for label in definition.labels}
    scores = [
        Score(label, names.get(label, label), chance)
        for label, chance in tone.probabilities.items()
    ]
    return tuple(sorted(scores, key=lambda score: -score.probability))


def definition_of(run: AppRun) -> Definition:
    return Definition.model_validate(run.version.definition)


def follows_instructions(model: str) -> bool:
    """Whether the model was taught to, so that it needs no examples."""
    kind = CatalogueModel.Kind.INSTRUCT
    return CatalogueModel.objects.filter(pk=model, kind=kind).exists()


def _prompt_logprobs(entries: list[Entry]) -> list[float]:
    return [
        token.logprob
        for entry in entries
        if isinstance(entry.event, Delta)
        for token in entry.event.prompt_logprobs or ()
    ]
