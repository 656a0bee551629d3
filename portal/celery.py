"""The portal's Celery app: background tasks of its own, and the sender of workers' wake-ups."""

from __future__ import annotations

import os

from celery import Celery

from inference_workers.contract import PORTAL_QUEUE
from inference_workers.queue import broker_url

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


def make_app() -> Celery:
    """Threads, early ack, no results: what must not be lost is in the database."""
    from django.conf import settings

    made = Celery("portal", broker=broker_url(settings.REDIS_URL))
    made.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 1,
            "socket_keepalive": True,
        },
        result_backend=None,
        task_acks_late=False,
        task_default_queue=PORTAL_QUEUE,
        task_ignore_result=True,
        task_serializer="json",
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    made.autodiscover_tasks()
    return made


app = make_app()
