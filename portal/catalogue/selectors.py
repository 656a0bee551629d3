"""Reads about models. The catalogue is the same for everybody.

ModelUnavailable    its text names the model and the remedy
├── UnknownModel    there is none of that name
└── NotPlaced       known, but switched off
    └── NotReady    known, but its weights are not here yet
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from django.conf import settings
from django.db.models import Case, QuerySet, When

from llmasos.text.tokenizer import Tokenizer
from portal.catalogue.models import CatalogueModel
from portal.statements import Selection

Placement = CatalogueModel.Placement
State = CatalogueModel.State


class ModelUnavailable(Exception):
    """``model`` is the id that was asked for; ``code`` is for programs."""

    code = "model_unavailable"

    def __init__(self, message: str, *, model: str) -> None:
        super().__init__(message)
        self.message = message
        self.model = model


class UnknownModel(ModelUnavailable):
    code = "model_not_found"


class NotPlaced(ModelUnavailable):
    code = "model_off"


class NotReady(NotPlaced):
    code = "model_not_ready"


def every_model() -> QuerySet[CatalogueModel]:
    """All that was not removed, for operators."""
    found = CatalogueModel.objects.filter(removed_at=None).order_by("id")
    return found.select_related("origin")


def visible_models() -> QuerySet[CatalogueModel]:
    """What may be asked for now: prepared and switched on; the default model comes first."""
    ready = every_model().filter(state=State.READY).exclude(placement=Placement.OFF)
    default = When(pk=settings.LLMASOS.default_model, then=0)
    return ready.order_by(Case(default, default=1), "id")


def text_models() -> QuerySet[CatalogueModel]:
    """Those of ``visible_models`` that go on from a text: what one can complete or chat with."""
    return visible_models().exclude(kind=CatalogueModel.Kind.EMBEDDING)


def embedding_models() -> QuerySet[CatalogueModel]:
    """Those of ``visible_models`` that make embeddings."""
    return visible_models().filter(kind=CatalogueModel.Kind.EMBEDDING)


def encoders_among(ids: Collection[str]) -> set[str]:
    """Which of ``ids`` make embeddings, whatever their state."""
    found = every_model().filter(pk__in=list(ids), kind=CatalogueModel.Kind.EMBEDDING)
    return set(found.values_list("pk", flat=True))


def get(model_id: str) -> CatalogueModel:
    """A model in whatever state. Raises ``UnknownModel``."""
    return _get(lambda pk: every_model().filter(pk=pk).first(), model_id)


def _get(find: Callable[[str], CatalogueModel | None], model_id: str) -> CatalogueModel:
    found = find(model_id) if "\0" not in model_id else None
    if found is None:
        known = ", ".join(visible_models().values_list("pk", flat=True)) or "none yet"
        shown = model_id[:64]
        raise UnknownModel(
            f"There is no model {shown!r}. Models that can be used: {known}.", model=shown
        )
    return found


_FOR_JOBS = Selection(
    "SELECT {model} FROM catalogue_cataloguemodel AS model "
    "WHERE model.id = %s AND model.removed_at IS NULL",
    model=(
        CatalogueModel,
        ("id", "state", "placement", "kind", "digest", "format", "vocab_size", "context_length"),
    ),
)


def _for_jobs(model_id: str) -> CatalogueModel | None:
    found = _FOR_JOBS.first(model_id)
    return found[0] if found else None


def servable(model_id: str) -> CatalogueModel:
    """A model that takes jobs, with what a job needs of it; the rest is read when it is asked for.

    Raises ``UnknownModel``, ``NotReady`` or ``NotPlaced``.
    """
    model = _get(_for_jobs, model_id)
    if model.state != State.READY:
        raise NotReady(
            f"{model.id} is not prepared here. An operator can run: "
            f"manage.py models prepare {model.id}",
            model=model.id,
        )
    if model.placement == Placement.OFF:
        raise NotPlaced(
            f"{model.id} is switched off. An operator can run: "
            f"manage.py models place {model.id} on_demand",
            model=model.id,
        )
    return model


def prepared_folder(model: CatalogueModel) -> Path:
    """Where the prepared model lies, or will lie."""
    folder: Path = settings.LLMASOS.data / "models" / model.id
    return folder


def tokenizer(model_id: str) -> Tokenizer:
    """The tokenizer of a servable model; parsed once, then kept."""
    return Tokenizer.load(prepared_folder(servable(model_id)))
