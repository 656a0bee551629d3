"""Who did what: one line for each change that somebody may have to answer for.

Services call ``record`` in the transaction of the change itself. Nothing is logged by signals: a
conditional UPDATE, which is how this house changes state, sends none. What is said of a team, or of
something that has a ``team``, its owners and admins read in the team's log.
"""

from __future__ import annotations

from typing import Any, Literal

from auditlog.models import LogEntry
from django.apps import apps
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
    name: str | None = None,
) -> None:
    """Log a change of ``instance``; ``changes`` maps a field to what it was and what it is.

    ``actor`` ``None`` means the console: a management command or the portal itself. ``name`` is
    what readers know the instance by, where that is not its ``str``.
    """
    entry = LogEntry.objects.log_create(
        instance,
        force_log=True,
        action=ACTIONS[action],
        actor=actor,
        actor_email=getattr(actor, "email", None),
        changes={field: [_text(old), _text(new)] for field, (old, new) in (changes or {}).items()},
        **({} if name is None else {"object_repr": name}),
    )
    itself = instance._meta.label == "teams.Team"
    team = instance.pk if itself else getattr(instance, "team_id", None)
    if team is not None:  # by name: this module lies below the apps
        apps.get_model("teams", "TeamLog")._base_manager.create(team_id=team, entry=entry)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
