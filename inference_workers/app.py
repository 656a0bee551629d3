"""The Celery app of a worker: it listens for wake-ups on its model's queue.

Threads pool, early ack, no time limits: under threads Celery can neither stop a task nor see one
hang, so deadlines and cancelling are ours. A message is only a wake-up; the fair queue is the
truth, and a lost message delays nobody by more than the 250 ms between two looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.worker import WorkController, state

from inference_workers import tasks
from inference_workers.contract import wakeup_queue
from inference_workers.queue import broker_url

log = structlog.get_logger(__name__)


def make_app(redis_url: str) -> Celery:
    """The app, without tasks yet."""
    # Where DJANGO_SETTINGS_MODULE is set, Celery's own fixup would start Django here.
    app = Celery("inference_workers", broker=broker_url(redis_url), set_as_current=False, fixups=[])
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_keepalive": True, "health_check_interval": 25},
        event_queue_expires=60,
        result_backend=None,
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        task_soft_time_limit=None,
        task_time_limit=None,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=16,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    return app


class WakeUps:
    """Listens on a thread of its own. The process' signals stay with the runtime."""

    def __init__(
        self, redis_url: str, *, model: str, worker: str, claim_all: Callable[[], int]
    ) -> None:
        self._app = make_app(redis_url)
        tasks.register(self._app, claim_all)
        self._model, self._worker = model, worker
        self._controller: Any = None
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._controller = WorkController(
                app=self._app,
                hostname=f"{self._worker}@inference",
                pool_cls="threads",
                concurrency=1,
                queues=[wakeup_queue(self._model)],
                loglevel="WARNING",
                without_gossip=True,
                without_heartbeat=True,
                without_mingle=True,
            )
            self._controller.start()
        except BaseException:
            # The looks every 250 ms go on without it.
            log.exception("wake_ups_stopped")

    def stop(self, timeout: float = 2.0) -> None:
        """Take no more messages. One that was taken already is lost, which does no harm."""
        state.should_stop = 0
        self._thread.join(timeout)
