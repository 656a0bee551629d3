"""Who may do what in a team, by role. An operator has no role in a team by being one.

``user.has_perm("teams.…", team)`` is always true for operators; ``may`` asks the role alone.
"""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from rules.permissions import has_perm, set_perm
from rules.predicates import predicate

from portal.accounts.models import User
from portal.teams.models import Membership, Team

Role = Membership.Role
RANK = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.ADMIN: 2, Role.OWNER: 3}

VIEW = "teams.view"
RUN_JOBS = "teams.run_jobs"
MANAGE_KEYS = "teams.manage_keys"
MANAGE_MEMBERS = "teams.manage_members"
MANAGE_BUDGET = "teams.manage_budget"
RENAME = "teams.rename"
READ_LOG = "teams.read_log"
TRANSFER = "teams.transfer"
DELETE = "teams.delete"

LEAST = {
    VIEW: Role.VIEWER,
    READ_LOG: Role.VIEWER,
    RUN_JOBS: Role.DEVELOPER,
    MANAGE_KEYS: Role.DEVELOPER,
    MANAGE_MEMBERS: Role.ADMIN,
    MANAGE_BUDGET: Role.ADMIN,
    RENAME: Role.ADMIN,
    TRANSFER: Role.OWNER,
    DELETE: Role.OWNER,
}
"""The least role that each permission takes."""


def allows(role: str, permission: str) -> bool:
    """Whether somebody with ``role`` (empty: none) may; without asking the database."""
    return bool(role) and RANK[Role(role)] >= RANK[LEAST[permission]]


def may_give(giver: str, role: str) -> bool:
    """Whether somebody who is ``giver`` may make somebody a ``role``: none above their own."""
    return allows(giver, MANAGE_MEMBERS) and RANK[Role(role)] <= RANK[Role(giver)]


def may_touch(toucher: str, role: str) -> bool:
    """Whether somebody may change or remove a member who has ``role``: none above their own."""
    return may_give(toucher, role)


def roles_from(least: Role) -> list[Role]:
    """``least`` and every role above it."""
    return [role for role, rank in RANK.items() if rank >= RANK[least]]


def has_role(user: User | AnonymousUser, team: Team | None, least: Role) -> bool:
    """Whether ``user`` is active and has at least that role in ``team``, which is not deleted."""
    if team is None or not isinstance(user, User) or not user.is_active:
        return False
    found = Membership.objects.filter(team=team, user=user, role__in=roles_from(least))
    return found.filter(team__delete_at=None).exists()


def _at_least(least: Role) -> Callable[[User, Team | None], bool]:
    def check(user: User, team: Team | None = None) -> bool:
        return has_role(user, team, least)

    named: Callable[[User, Team | None], bool] = predicate(  # type: ignore[no-untyped-call]
        check, name=f"at_least_{least.value}"
    )
    return named


for _permission, _least in LEAST.items():
    set_perm(_permission, _at_least(_least))  # type: ignore[no-untyped-call]


def may(user: User | AnonymousUser, permission: str, team: Team) -> bool:
    """Whether the user's role in ``team`` allows it."""
    return bool(has_perm(permission, user, team))  # type: ignore[no-untyped-call]


amay = sync_to_async(may)
