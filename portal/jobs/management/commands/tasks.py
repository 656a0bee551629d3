"""``manage.py tasks``: the keeper, chores and the portal's background tasks, in one process."""

from __future__ import annotations

import threading
from typing import Any

from celery.worker import WorkController
from django.conf import settings
from django.core.management.base import BaseCommand

from inference_workers.contract import PORTAL_QUEUE
from portal.celery import app
from portal.chores import Chores
from portal.jobs.keeper import Keeper


class Command(BaseCommand):
    help = "Record finished jobs, bring lost ones back, and run the portal's background tasks."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        loops = [
            threading.Thread(target=Keeper().run, args=(stop,), name="keeper"),
            threading.Thread(target=Chores(settings.CHORES).run, args=(stop,), name="chores"),
        ]
        worker: Any = app.Worker(
            pool_cls="threads",
            concurrency=2,
            queues=[PORTAL_QUEUE],
            loglevel="WARNING",
            without_gossip=True,
            without_heartbeat=True,
            without_mingle=True,
        )
        assert isinstance(worker, WorkController)
        for loop in loops:
            loop.start()
        try:
            worker.start()
        finally:
            stop.set()
            for loop in loops:
                loop.join(10)
