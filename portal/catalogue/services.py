"""Writes to the catalogue. A model's state changes by conditional UPDATE only:

absent | failed | ready ──begin──▶ preparing ──▶ ready
                                       └───────▶ failed, or ready again if it was and still is

A preparation that died leaves ``preparing`` behind, with a ``touched_at`` that grows old; after
``STALE`` somebody else may begin.

CatalogueError      its text names the model and the remedy
├── BadModel        a field can't be what it is
├── Busy            somebody is preparing it right now
└── InUse           it is placed, or jobs wait for it
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from portal import audit
from portal.accounts.models import User
from portal.catalogue.builtin import BUILTIN, Builtin
from portal.catalogue.models import STALE, CatalogueModel
from portal.catalogue.selectors import every_model
from portal.config import MODEL_ID

Kind = CatalogueModel.Kind
Placement = CatalogueModel.Placement
State = CatalogueModel.State

PRICE_LIMIT = 10_000_000
PRICE_STEP = Decimal("0.0001")

SOURCE = re.compile(r"echo|pypi:[a-z0-9][a-z0-9._-]*|hub:[\w.-]+/[\w.-]+(@[\w./-]+)?|/[^\0]+")


class CatalogueError(Exception):
    pass


class BadModel(CatalogueError):
    pass


class Busy(CatalogueError):
    pass


class InUse(CatalogueError):
    pass


def sync_builtin() -> list[str]:
    """Make the catalogue know the program's own models; returns the ids that are new.

    Never undoes what an operator did: placement is set once, a removed model stays removed, and a
    prepared one stays as it was prepared.
    """
    made = []
    for entry in BUILTIN:
        fields = _described(entry)
        _row, created = CatalogueModel.objects.get_or_create(
            pk=entry.id, defaults={**fields, "builtin": True, "placement": entry.placement}
        )
        if created:
            made.append(entry.id)
        else:
            unprepared = CatalogueModel.objects.filter(pk=entry.id, builtin=True, digest="")
            unprepared.exclude(state=State.PREPARING).update(**fields)
    return made


def _described(entry: Builtin) -> dict[str, Any]:
    licence, licence_url = entry.licence
    return {
        "name": entry.name,
        "source": entry.source,
        "family": entry.family,
        "kind": entry.kind,
        "licence": licence,
        "licence_url": licence_url,
        "parameters": entry.parameters,
        "context_length": entry.context_length,
        "vocab_size": entry.vocab_size,
        "dimensions": entry.dimensions,
    }


def add_model(
    *,
    model_id: str,
    source: str,
    kind: str,
    name: str = "",
    licence: str = "",
    licence_url: str = "",
    actor: User | None = None,
) -> CatalogueModel:
    """A new entry, not prepared and switched off. Raises ``BadModel``."""
    if not re.fullmatch(MODEL_ID, model_id) or len(model_id) > 64:
        raise BadModel(
            f"{model_id!r} can't be a model's id: use small letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit, at most 64."
        )
    if not SOURCE.fullmatch(source) or len(source) > 300 or ".." in source.split("/"):
        raise BadModel(
            f"{source!r} is not a source. Use hub:ORG/NAME[@REVISION], /path/to/a/folder, "
            "/path/to/file.gguf or echo."
        )
    if kind not in Kind.values:
        raise BadModel(f"{kind!r} is not a kind. Use one of: {', '.join(Kind.values)}.")
    fields: dict[str, Any] = {
        "name": name or model_id,
        "source": source,
        "kind": kind,
        "licence": licence or "unknown: ask whoever made it",
        "licence_url": licence_url,
        "builtin": False,
        "removed_at": None,
    }
    with transaction.atomic():
        if every_model().filter(pk=model_id).exists():
            raise BadModel(f"There is a model {model_id} already. Choose another id.")
        reset = {"state": State.ABSENT, "digest": "", "commit": "", "family": "", "error": ""}
        alone: dict[str, Any] = {"origin": None, "figures": {}, "bytes": 0, "format": ""}
        model, _ = CatalogueModel.objects.update_or_create(
            pk=model_id, defaults={**fields, **reset, **alone, "placement": Placement.OFF}
        )
        audit.record(actor=actor, action="create", instance=model)
    return model


def place(*, model: CatalogueModel, placement: str, actor: User | None = None) -> None:
    """Say when workers serve it. Raises ``BadModel`` if it is not prepared or there is no such
    placement."""
    if placement not in Placement.values:
        raise BadModel(f"{placement!r} is not a placement. Use {', '.join(Placement.values)}.")
    rows = every_model().filter(pk=model.pk)
    if placement != Placement.OFF:
        rows = rows.filter(state=State.READY)
    with transaction.atomic():
        if not rows.update(placement=placement):
            raise BadModel(
                f"{model.id} is not prepared yet. Run: manage.py models prepare {model.id}"
            )
        if model.placement != placement:
            changes = {"placement": (model.placement, placement)}
            audit.record(actor=actor, action="update", instance=model, changes=changes)
    model.placement = placement


def set_price(
    *,
    model: CatalogueModel,
    price_input: Decimal | None,
    price_output: Decimal | None,
    actor: User | None = None,
) -> None:
    """What a million tokens cost, in the house's currency, for showing costs; ``None``: no price.

    Raises ``BadModel``.
    """
    prices = {"price_input": price_input, "price_output": price_output}
    for name, price in prices.items():
        if price is not None and not (price.is_finite() and 0 <= price < PRICE_LIMIT):
            raise BadModel(f"{name} must be a number from 0 to {PRICE_LIMIT:,}, not {price}.")
    rounded = {name: price and price.quantize(PRICE_STEP) for name, price in prices.items()}
    with transaction.atomic():
        row = every_model().select_for_update(of=("self",)).filter(pk=model.pk).first()
        if row is None:
            raise BadModel(f"{model.id} was removed meanwhile.")
        changes = {n: (getattr(row, n), p) for n, p in rounded.items() if getattr(row, n) != p}
        if changes:
            every_model().filter(pk=model.pk).update(**rounded)
            audit.record(actor=actor, action="update", instance=row, changes=changes)


def remove_model(*, model: CatalogueModel, actor: User | None = None) -> None:
    """Take it out of the catalogue; jobs that ran on it keep their row. Raises ``InUse``.

    The caller deletes the files afterwards. Jobs are known here by the reverse relation alone:
    ``jobs`` lies above this package.
    """
    with transaction.atomic():
        row = every_model().select_for_update(of=("self",)).filter(pk=model.pk)
        if not row.exists():
            return
        if row.exclude(placement=Placement.OFF).exists():
            raise InUse(f"{model.id} is placed. Run first: manage.py models place {model.id} off")
        waiting = model.jobs.filter(state="open").count()
        if waiting:
            raise InUse(f"{waiting} jobs wait for {model.id} or run on it. Try again when none do.")
        if not row.filter(_may_begin()).exists():
            raise InUse(f"{model.id} is being prepared. Wait until that has ended.")
        row.update(removed_at=timezone.now(), state=State.ABSENT, digest="", commit="", error="")
        audit.record(actor=actor, action="delete", instance=model)


def _may_begin() -> Q:
    dead = Q(touched_at=None) | Q(touched_at__lt=timezone.now() - STALE)
    return ~Q(state=State.PREPARING) | dead


def begin_preparing(*, model: CatalogueModel) -> None:
    """Take the model for preparation. Raises ``Busy`` if somebody alive has it."""
    begun = {"progress": 0.0, "message": "", "error": "", "touched_at": timezone.now()}
    rows = every_model().filter(_may_begin(), pk=model.pk)
    if not rows.update(state=State.PREPARING, **begun):
        raise Busy(f"{model.id} is being prepared by another process.")


def touch(*, model: CatalogueModel, progress: float, message: str) -> None:
    """A sign of life from whoever prepares it."""
    CatalogueModel.objects.filter(pk=model.pk, state=State.PREPARING).update(
        touched_at=timezone.now(), progress=progress, message=message[:200]
    )


def finish_preparing(
    *, model: CatalogueModel, manifest: dict[str, Any], actor: User | None = None
) -> bool:
    """Note what the prepared files are; ``False`` if the model is no longer being prepared."""
    found = {
        name: manifest[name]
        for name in ("family", "parameters", "context_length", "vocab_size", "digest", "format")
    }
    with transaction.atomic():
        done = CatalogueModel.objects.filter(pk=model.pk, state=State.PREPARING).update(
            **found,
            state=State.READY,
            kind=manifest["kind"],
            dimensions=manifest.get("dimensions", 0),
            bytes=manifest["bytes"],
            commit=manifest.get("commit") or "",
            prepared_at=datetime.fromtimestamp(manifest["prepared_at"], UTC),
            progress=1.0,
            message="",
            error="",
        )
        if done:
            changes = {"digest": (model.digest, manifest["digest"])}
            audit.record(actor=actor, action="update", instance=model, changes=changes)
    return bool(done)


def fail_preparing(*, model: CatalogueModel, error: str) -> None:
    """Note why it did not work."""
    CatalogueModel.objects.filter(pk=model.pk, state=State.PREPARING).update(
        state=State.FAILED, error=error, message=""
    )


def mark_broken(*, model: CatalogueModel, error: str) -> None:
    """A check found the files changed or missing: take no more jobs on them."""
    CatalogueModel.objects.filter(pk=model.pk, state=State.READY).update(
        state=State.FAILED, error=error
    )
