"""The catalogue's background work; each task calls one service."""

from __future__ import annotations

import structlog

from portal.catalogue import lighter
from portal.catalogue.selectors import ModelUnavailable
from portal.catalogue.services import CatalogueError
from portal.celery import app

logger = structlog.get_logger(__name__)


@app.task(name=lighter.TASK_MAKE)  # type: ignore[untyped-decorator]
def make_lighter(model_id: str) -> None:
    try:
        lighter.make(model_id=model_id, progress=lambda fraction, message: None)
    except (CatalogueError, ModelUnavailable) as error:
        logger.warning("lighter_failed", model=model_id, error=str(error))
