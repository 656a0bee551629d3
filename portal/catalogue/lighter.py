"""Lighter versions: a prepared model packed with fewer bits, measured, with a name of its own.

``start`` makes the entry and hands the work to the portal's tasks; ``make`` does it, in processes
of the engine room's, and is what ``manage.py models quantize`` runs as well. An entry's state is
that of any model (``services``): it begins as ``preparing`` with a sign of life, so that nobody
else makes one of the same model meanwhile, and a page that was closed changes nothing.
"""

from __future__ import annotations

import functools
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from portal.accounts.models import User
from portal.catalogue import preparation
from portal.catalogue.models import STALE, CatalogueModel
from portal.catalogue.preparation import Progress
from portal.catalogue.selectors import UnknownModel, every_model, get, prepared_folder
from portal.catalogue.services import (
    BadModel,
    Busy,
    add_model,
    fail_preparing,
    finish_preparing,
    remove_model,
)
from portal.celery import app

TASK_MAKE = "portal.catalogue.make_lighter"
FORMATS = ("int8", "int4")
State = CatalogueModel.State
logger = structlog.get_logger(__name__)


def default_id(origin: str, target: str) -> str:
    return f"{origin[: 63 - len(target)]}-{target}"


def start(
    *, origin_id: str, target: str, model_id: str = "", actor: User | None = None
) -> CatalogueModel:
    """Make the entry and have it made in the background.

    Raises ``UnknownModel``, ``BadModel`` or, while one of the same model is being made, ``Busy``.
    """
    with transaction.atomic():
        model = enter(origin_id=origin_id, target=target, model_id=model_id, actor=actor)
        transaction.on_commit(functools.partial(_send, model))
    return model


def _send(model: CatalogueModel) -> None:
    try:
        app.send_task(TASK_MAKE, args=[model.pk], ignore_result=True, retry=False)
    except Exception as error:  # kombu and redis-py raise many kinds
        logger.warning("lighter_not_sent", model=model.pk, error=str(error))
        fail_preparing(model=model, error="The queue does not answer. Try again when it does.")


def enter(
    *, origin_id: str, target: str, model_id: str = "", actor: User | None = None
) -> CatalogueModel:
    """The entry of a lighter version, taken for being made. A failed or abandoned one of the same
    name, model and format is taken again. Raises as ``start``."""
    if target not in FORMATS:
        raise BadModel(f"{target!r} is not a format. Use {' or '.join(FORMATS)}.")
    with transaction.atomic():
        origin = _origin(origin_id)
        busy = origin.lighter.filter(_alive(), removed_at=None).first()
        if busy is not None:
            raise Busy(f"{busy.pk} is being made of {origin.pk}. Wait until that has ended.")
        name = model_id or default_id(origin.pk, target)
        again = origin.lighter.filter(pk=name, format=target, removed_at=None)
        if not again.exclude(state=State.READY).exists():
            add_model(
                model_id=name,
                source=origin.source,
                kind=origin.kind,
                name=f"{origin.name} ({target})",
                licence=origin.licence,
                licence_url=origin.licence_url,
                actor=actor,
            )
        CatalogueModel.objects.filter(pk=name).update(
            origin=origin,
            format=target,
            figures={},
            family=origin.family,
            parameters=origin.parameters,
            context_length=origin.context_length,
            vocab_size=origin.vocab_size,
            state=State.PREPARING,
            progress=0.0,
            message="",
            error="",
            touched_at=timezone.now(),
        )
    return get(name)


def _origin(origin_id: str) -> CatalogueModel:
    get(origin_id)  # names what there is, if this one is not there
    origin = every_model().select_for_update(of=("self",)).get(pk=origin_id)
    if origin.origin_id is not None:
        raise BadModel(
            f"{origin.pk} is a lighter version itself. Make one of {origin.origin_id} instead."
        )
    if origin.embeds:
        raise BadModel(
            f"{origin.pk} makes embeddings: its vectors must stay comparable, so it has no lighter "
            "version. Choose a model that goes on from text."
        )
    if origin.state != State.READY:
        raise BadModel(
            f"{origin.pk} is not prepared yet. Run: manage.py models prepare {origin.pk}"
        )
    return origin


def _alive() -> Q:
    return Q(state=State.PREPARING, touched_at__gte=timezone.now() - STALE)


def make(*, model_id: str, progress: Progress, actor: User | None = None) -> CatalogueModel:
    """Pack and measure an entered lighter version.

    Raises ``UnknownModel``, ``Busy`` or ``PreparationFailed``; interrupting it is harmless.
    """
    model = get(model_id)
    if model.origin is None:
        raise UnknownModel(f"{model.pk} is not a lighter version of a model.", model=model.pk)
    if model.state != State.PREPARING:
        raise BadModel(f"{model.pk} is not waiting to be made.")
    with preparation.under_way(model=model, progress=progress) as told:
        origin = model.origin
        manifest = preparation.follow(preparation.making(model), _part(told, 0.0, 0.4))
        if origin.figures.get("digest") != origin.digest:
            figures = _measured(origin, _part(told, 0.4, 0.7))
            CatalogueModel.objects.filter(pk=origin.pk, digest=origin.digest).update(
                figures=figures
            )
        figures = _measured(model, _part(told, 0.7, 1.0))
        CatalogueModel.objects.filter(pk=model.pk).update(figures=figures)
        finish_preparing(model=model, manifest=manifest, actor=actor)
    return get(model_id)


def _measured(model: CatalogueModel, progress: Progress) -> dict[str, Any]:
    """What ``python -m inference_workers measure`` says, and when."""
    arguments = ["measure", "--path", str(prepared_folder(model))]
    progress(0.0, "Loading the model")  # before the process can say so: torch takes seconds
    found = preparation.follow(arguments, progress, result="measured")
    return found | {"at": datetime.now(UTC).isoformat(timespec="seconds")}


def _part(progress: Progress, start: float, end: float) -> Progress:
    return lambda fraction, message: progress(start + fraction * (end - start), message)


def discard(*, model: CatalogueModel, actor: User | None = None) -> None:
    """Take a model out of the catalogue, its files too. Raises ``InUse``."""
    folder: Path = prepared_folder(model)
    remove_model(model=model, actor=actor)
    shutil.rmtree(folder, ignore_errors=True)
