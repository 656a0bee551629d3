"""Reads about models."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from portal.catalogue.models import CatalogueModel


class UnknownModel(Exception):
    """There is no such model."""


class NotPlaced(Exception):
    """It is known, but nothing may serve it now."""


def servable(model_id: str) -> CatalogueModel:
    model = CatalogueModel.objects.filter(pk=model_id).first()
    if model is None:
        raise UnknownModel(f"There is no model {model_id!r} here.")
    if model.state != CatalogueModel.State.READY or model.placement == "off":
        raise NotPlaced(f"{model_id} is not ready to serve.")
    return model


def prepared_folder(model: CatalogueModel) -> Path:
    folder: Path = settings.LLMASOS.data / "models" / model.pk
    return folder
