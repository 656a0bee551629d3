"""Who did what: one line for each change that somebody may have to answer for.

Services call ``record`` in the transaction of the change itself. Nothing is logged by signals: a
conditional UPDATE, which is how this house changes state, sends none.
"""

from __future__ import annotations

from typing import Any, Literal

from auditlog.models import LogEntry
from django.contrib.auth.models import AbstractBaseUser
from django.db import models

ACTIONS = {
    "create": LogEntry.Action.CREATE,
    "update": LogEntry.Action.UPDATE,
    "delete": LogEntry.Action.DELETE,
}


def record(
    *,
    actor: AbstractBaseUser | None,
    action: Literal["create", "update", "delete"],
    instance: models.Model,
    changes: dict[str, tuple[Any, Any]] | None = None,
) -> None:
    """Log a change of ``instance``; ``changes`` maps a field to what it was and what it is.

    ``actor`` ``None`` means the console: a management command or the portal itself.
    """
    LogEntry.objects.log_create(
        instance,
        force_log=True,
        action=ACTIONS[action],
        actor=actor,
        actor_email=getattr(actor, "email", None),
        changes={name: [_text(old), _text(new)] for name, (old, new) in (changes or {}).items()},
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)
