"""What operators do from the wall; everything is audited."""

from __future__ import annotations

from auditlog.models import LogEntry

from inference_workers.queue.leases import Leases
from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.dashboard import selectors


class UnknownWorker(Exception):
    """There is no live worker of that name."""


def drain_worker(*, operator: User, name: str) -> None:
    """Ask a worker to claim nothing more, hand over what runs, and leave."""
    found = selectors.worker(name)
    if found is None:
        raise UnknownWorker(name)
    Leases(selectors.client()).request_drain(name)
    model = CatalogueModel.objects.filter(pk=found.model).first()
    if model is not None:
        LogEntry.objects.log_create(
            model,
            force_log=True,
            action=LogEntry.Action.UPDATE,
            changes={"worker": [found.state, "draining"]},
            actor=operator,
            additional_data={"did": "drain", "worker": name, "host": found.host},
        )
    selectors.now.clear()
