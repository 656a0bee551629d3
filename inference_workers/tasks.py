"""Celery's tasks in a worker: wake-ups, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from inference_workers.contract import TASK_PULL


def register(app: Celery, claim_all: Callable[[], int]) -> None:
    """Answer wake-ups by claiming until nothing is claimable."""

    @app.task(name=TASK_PULL, ignore_result=True)  # type: ignore[untyped-decorator]
    def pull() -> None:
        claim_all()
