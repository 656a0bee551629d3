"""Models, for operators: where they run. Preparing and removing are for the console."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.http import HttpRequest

from portal.admin import HouseAdmin, acting
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import get
from portal.catalogue.services import CatalogueError, place


@admin.register(CatalogueModel)
class CatalogueModelAdmin(HouseAdmin):
    list_display = ("id", "name", "kind", "state", "placement", "parameters", "licence")
    list_filter = ("state", "placement", "kind")
    search_fields = ("id", "name")
    editable: ClassVar[tuple[str, ...]] = ("placement",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        try:
            place(model=get(obj.pk), placement=obj.placement, actor=acting(request))
        except CatalogueError as error:
            self.message_user(request, str(error), messages.ERROR)
