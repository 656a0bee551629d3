"""The portal's Celery app: background tasks of its own, and the sender of workers' wake-ups."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


def broker_url(redis_url: str) -> str:
    """kombu's spelling of a Redis URL: unix sockets are ``redis+socket://``."""
    return redis_url.replace("unix://", "redis+socket://", 1)


app = Celery("portal")
