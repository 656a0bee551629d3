"""What pages call roles and permissions."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from portal.teams import rules
from portal.teams.models import ApiKey, Membership

Role = Membership.Role

ROLE_NAMES: dict[str, Promise] = {
    Role.OWNER: _("owner"),
    Role.ADMIN: _("admin"),
    Role.DEVELOPER: _("developer"),
    Role.VIEWER: _("viewer"),
}

PERMISSION_NAMES: dict[str, Promise] = {
    rules.VIEW: _("see the team: members, keys, jobs, usage"),
    rules.RUN_JOBS: _("run jobs"),
    rules.MANAGE_KEYS: _("make API keys, and revoke one's own"),
    rules.MANAGE_MEMBERS: _("invite, remove and change members up to one's own role"),
    rules.MANAGE_BUDGET: _("set budgets"),
    rules.RENAME: _("rename the team"),
    rules.READ_LOG: _("read the log"),
    rules.TRANSFER: _("hand the team over"),
    rules.DELETE: _("delete the team, and bring it back"),
}

SCOPE_NAMES: dict[str, Promise] = {
    ApiKey.Scope.MODELS: _("list models and count tokens"),
    ApiKey.Scope.CHAT: _("chat, complete, embed"),
    ApiKey.Scope.APPS: _("run apps"),
    ApiKey.Scope.TRAINING: _("train and keep data sets"),
    ApiKey.Scope.ADMIN: _("manage the team: keys, budgets, usage"),
}


def choices(roles: list[Role]) -> list[tuple[str, Promise]]:
    return [(role.value, ROLE_NAMES[role]) for role in roles]


def table() -> list[tuple[Promise, list[bool]]]:
    """Each permission with a yes or no for owner, admin, developer and viewer."""
    return [
        (PERMISSION_NAMES[permission], [rules.allows(role, permission) for role in ROLE_NAMES])
        for permission in rules.LEAST
    ]
