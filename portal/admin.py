"""What operators' admin pages share: reading is free, changing goes through services.

A model's admin names the fields that may be edited; everything else is read-only, nothing is added
or deleted here, and ``save_model`` calls the service that would do the same from the console.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from portal.accounts.models import User


class HouseAdmin(ModelAdmin):  # type: ignore[misc]
    """Read-only but for ``editable``."""

    editable: ClassVar[tuple[str, ...]] = ()
    hidden: ClassVar[tuple[str, ...]] = ()

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        names = [field.name for field in self.model._meta.fields]
        return [name for name in names if name not in self.hidden]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [name for name in self.get_fields(request, obj) if name not in self.editable]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(super().has_change_permission(request, obj)) and (
            obj is None or bool(self.editable)
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        raise NotImplementedError(f"{type(self).__name__} has editable fields and no service")


def acting(request: HttpRequest) -> User:
    """The operator at work."""
    assert isinstance(request.user, User), "the admin site is for signed-in operators"
    return request.user
