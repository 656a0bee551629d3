"""Permissions by rule (``rules``), in the async path too."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from rules.permissions import ObjectPermissionBackend


class RulesBackend(ObjectPermissionBackend):
    """``rules`` ships no async methods, so ``await user.ahas_perm()`` would skip its predicates."""

    async def aauthenticate(self, *args: Any, **kwargs: Any) -> None:
        return None

    async def ahas_perm(self, user: Any, perm: str, *args: Any, **kwargs: Any) -> bool:
        return bool(await sync_to_async(self.has_perm)(user, perm, *args, **kwargs))

    async def ahas_module_perms(self, user: Any, app_label: str) -> bool:
        return bool(await sync_to_async(self.has_module_perms)(user, app_label))
