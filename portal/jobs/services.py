"""Writes about jobs: make one, stop one.

A request is looked at completely before anything is written, and outside the transaction, which
holds only the reservation and the row. Callers that write more in the same transaction use
``prepare_job`` and ``submit_job``; all others ``create_job``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from redis.exceptions import RedisError

from inference_workers.contract import Sampling
from inference_workers.queue.fair import CancelResult
from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import NotPlaced, UnknownModel, servable
from portal.jobs import checks, dispatch, links
from portal.jobs.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    ModelUnavailable,
    QueueFull,
    Unavailable,
)
from portal.jobs.inputs import (
    ChatInput,
    EmbeddingInput,
    Input,
    Prompt,
    TextInput,
    TokenInput,
    leading_tokens,
    read_input,
)
from portal.jobs.models import SHARED, Job
from portal.metrics import JOBS_CREATED
from portal.statements import insert
from portal.teams.models import Team
from portal.usage.acting import acting
from portal.usage.limits import check_tokens
from portal.usage.policy import worst_case
from portal.usage.services import OverBudget, check_budget, hold

__all__ = ["ChatInput", "EmbeddingInput", "TextInput", "TokenInput", "cancel_job", "create_job"]

DEADLINE_S = 3600.0
"""After this a job ends, wherever it is: nobody waits longer."""

KEY_CHARACTERS = 128
LONGEST_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that may become a job: everything is checked, the budget not for good.

    ``worst_case`` is the most that it can be billed, and ``limit`` the team's for this month, both
    in tokens.
    """

    team: Team
    job: Job
    worst_case: int
    limit: int | None


def create_job(
    *,
    team: Team,
    user: User | None,
    source: str,
    model: str,
    input: Input,
    sampling: Sampling | Mapping[str, Any],
    seed: int | None = None,
    idempotency_key: str | None = None,
    session: str = "",
    prefixes: Sequence[tuple[str, int]] = (),
    deadline: float | None = None,
) -> Job:
    """Check, reserve the worst case, write the row and, after commit, queue it.

    ``sampling`` without ``max_tokens`` takes what fits. ``prefixes`` are ``(salt, tokens)`` pairs
    from the prompt's start that may be shared under their salts; the rest is salted for the team,
    or for the visitor's ``session``. ``deadline`` is a UNIX time. The same ``idempotency_key``
    again gives the same job.

    Raises:
        InvalidRequest, IdempotencyConflict, Forbidden, ModelUnavailable, QueueFull, Unavailable,
        OverBudget, RateLimited.
    """
    draft = prepare_job(
        team=team,
        user=user,
        source=source,
        model=model,
        input=input,
        sampling=sampling,
        seed=seed,
        idempotency_key=idempotency_key,
        session=session,
        prefixes=prefixes,
        deadline=deadline,
    )
    return draft if isinstance(draft, Job) else submit_job(draft)


def prepare_job(
    *,
    team: Team,
    user: User | None,
    source: str,
    model: str,
    input: Input,
    sampling: Sampling | Mapping[str, Any],
    seed: int | None = None,
    idempotency_key: str | None = None,
    session: str = "",
    prefixes: Sequence[tuple[str, int]] = (),
    shared: str = "",
    deadline: float | None = None,
    fingerprint: str = "",
) -> Draft | Job:
    """``create_job`` up to the transaction; the job itself if its key has one already.

    ``shared`` is the text that every prompt of ``source`` begins with: its callers share what is
    computed of it.

    ``fingerprint`` says what the request was, where ``input`` doesn't (it may hold what an earlier
    try has added to a conversation).
    """
    key = idempotency_name(idempotency_key, session)
    digest = _digest(fingerprint or [model, source, type(input).__name__, asdict(input), seed,
                                     _plain(sampling)]) if key else ""  # fmt: skip
    if key and (found := _of_key(team, key, digest)):
        return found
    _check_allowed(model)
    served = _servable(model)
    checks.check_seed(seed)
    read = checks.read_sampling(sampling, vocab_size=served.vocab_size)
    check_queue(served.pk)
    prompt = read_input(input, model=served)
    fitted = _fit(read, prompt, served)
    if shared:
        prefixes = [(source, leading_tokens(shared, prompt.ids, model=served))]
    job = Job(
        team=team,
        user=user,
        session=session,
        source=source,
        model=served,
        model_digest=served.digest,
        format=served.format,
        input_ids=prompt.ids,
        lengths=prompt.lengths,
        prefixes=_partition(prefixes, len(prompt.ids), team, session),
        sampling=fitted.model_dump(mode="json", exclude_defaults=True)
        | {"max_tokens": fitted.max_tokens},
        seed=secrets.randbits(63) if seed is None else seed,
        deadline=deadline or time.time() + DEADLINE_S,
        idempotency_key=key,
        request_digest=digest,
        fleeting=team.retention_days == 0,
    )
    most = worst_case(prompt_tokens=len(prompt.ids), max_tokens=fitted.max_tokens, n=fitted.n)
    return _afford(team, job, most)


def _fit(read: Sampling, prompt: Prompt, model: CatalogueModel) -> Sampling:
    """The sampling within the model's context, ending where the prompt's form asks for it too."""
    fitted = checks.fit(read, prompt_tokens=prompt.longest, context_length=model.context_length)
    return fitted.model_copy(update={"stop": (*fitted.stop, *prompt.stop)})


def _check_allowed(model: str) -> None:
    """Whether the API key that acts, if one does, may use the model."""
    found = acting()
    if found is not None and not found.allows(model):
        allowed = ", ".join(found.key.allowed_models)
        raise Forbidden(f"This API key may not use {model[:64]!r}. It may use: {allowed}.")


def _afford(team: Team, job: Job, tokens: int) -> Draft | Job:
    """Look at budget and rate before anything is written; the job, if its key got one meanwhile."""
    try:
        limit = check_budget(team=team, tokens=tokens)
    except OverBudget:
        found = _of_key(team, job.idempotency_key, job.request_digest)
        if found is None:
            raise
        return found
    if found_acting := acting():
        found_acting.tokens = check_tokens(found_acting.key, tokens)
    return Draft(team=team, job=job, worst_case=tokens, limit=limit)


def submit_job(draft: Draft) -> Job:
    """Reserve and insert; after commit, queue. May stand inside the caller's transaction.

    The answer is another job than the draft's when the same key came twice at once.
    """
    job = draft.job
    try:
        with transaction.atomic():
            insert(job)
            hold(
                team=draft.team,
                limit=draft.limit,
                job_id=job.pk,
                tokens=draft.worst_case,
                model=job.model_id,
                source=job.source,
                user=job.user,
            )
            transaction.on_commit(lambda: _submitted(job))
    except (IntegrityError, OverBudget):
        found = _of_key(draft.team, job.idempotency_key, job.request_digest)
        if found is None:
            raise
        return found
    return job


def _submitted(job: Job) -> None:
    JOBS_CREATED.labels(job.model_id).inc()
    dispatch.send(job)


def cancel_job(*, job: Job) -> CancelResult:
    """Stop a job: a queued one at once, a running one at its next step. What it made is kept.

    Raises:
        Unavailable: the queue can't be reached.
    """
    if job.state != Job.State.OPEN:
        return "unknown"
    try:
        return links.queue().cancel(job.pk.hex)
    except (RedisError, OSError) as error:
        raise Unavailable("The queue can't be reached. Try again in a moment.") from error


def check_queue(model: str) -> None:
    """Refuse while the queue is full or away, or no worker can come, before any work is done.
    Raises as it says."""
    try:
        queue = links.queue()
        depth, unplaced = queue.outlook(model)
        if depth < settings.LLMASOS.queue_limit and not unplaced:
            return
        wait = queue.wait(model)
    except (RedisError, OSError) as error:
        raise Unavailable("The queue can't be reached. Try again in a moment.") from error
    if unplaced:
        raise ModelUnavailable(
            f"No worker can be started for {model} here: there is no memory for it, or its files "
            "can't be loaded. Choose another model. An operator sees the reason where manage.py up "
            "runs, and makes room with: manage.py models place MODEL off"
        )
    raise QueueFull(
        f"Too many requests wait for {model}. Try again in a moment.",
        retry_after=max(1, min(LONGEST_WAIT_S, round(wait / 4))),
    )


def idempotency_name(key: str | None, session: str) -> str:
    """What a key is stored as: visitors share a team, so theirs is bound to their session."""
    if not key:
        return ""
    if len(key) > KEY_CHARACTERS or not key.isprintable():
        raise InvalidRequest(
            "idempotency_key", f"An idempotency key has 1 to {KEY_CHARACTERS} printable characters."
        )
    return hashlib.sha256(f"{session}\0{key}".encode()).hexdigest() if session else key


def _of_key(team: Team, key: str, digest: str) -> Job | None:
    found = Job.objects.filter(team=team, idempotency_key=key).first() if key else None
    if found is not None and found.request_digest != digest:
        raise IdempotencyConflict
    return found


def _digest(what: Any) -> str:
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _plain(sampling: Sampling | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(sampling, Sampling):
        return sampling.model_dump(mode="json", exclude_unset=True)
    return dict(sampling)


def _servable(model: str) -> CatalogueModel:
    try:
        return servable(model)
    except UnknownModel as error:
        raise InvalidRequest("model", str(error), "model_not_found") from error
    except NotPlaced as error:
        raise ModelUnavailable(str(error)) from error


def _partition(
    prefixes: Sequence[tuple[str, int]], length: int, team: Team, session: str
) -> list[tuple[str, int]]:
    """Salts for the whole prompt, so that nobody can time another's prefixes."""
    shared: list[tuple[str, int]] = []
    for salt, tokens in prefixes:
        taken = max(0, min(tokens, length - sum(count for _, count in shared)))
        if taken:
            shared.append((f"{SHARED}{salt}", taken))
    rest = length - sum(count for _, count in shared)
    own = f"session:{hashlib.sha256(session.encode()).hexdigest()}" if session else ""
    return [*shared, (own or f"team:{team.pk.hex}", rest)] if rest else shared


def note_read(*, job: Job) -> bool:
    """A fleeting job's end was handed to a reader: it may go now."""
    unread = Job.objects.filter(pk=job.pk, fleeting=True, read_at=None)
    return bool(unread.update(read_at=timezone.now()))
