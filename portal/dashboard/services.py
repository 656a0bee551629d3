"""What operators do from the wall; everything is audited."""

from __future__ import annotations

from portal import audit
from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.dashboard import selectors
from portal.jobs import links


class UnknownWorker(Exception):
    """There is no live worker of that name."""


def drain_worker(*, operator: User, name: str) -> None:
    """Ask a worker to claim nothing more, hand over what runs, and leave."""
    found = selectors.worker(name)
    if found is None:
        raise UnknownWorker(name)
    links.leases().request_drain(name)
    model = CatalogueModel.objects.filter(pk=found.model).first()
    if model is not None:
        changes = {f"worker {name}": (found.state, "draining")}
        audit.record(actor=operator, action="update", instance=model, changes=changes)
    selectors.now.clear()
