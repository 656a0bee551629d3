"""Models, for operators: where they run, what they cost. Preparing is for the console."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.http import HttpRequest

from portal.admin import HouseAdmin, acting
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import get
from portal.catalogue.services import CatalogueError, place, set_price


@admin.register(CatalogueModel)
class CatalogueModelAdmin(HouseAdmin):
    list_display = ("id", "name", "kind", "state", "placement", "parameters", "licence")
    list_filter = ("state", "placement", "kind")
    search_fields = ("id", "name")
    editable: ClassVar[tuple[str, ...]] = ("placement", "price_input", "price_output")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        try:
            model, actor = get(obj.pk), acting(request)
            if model.placement != obj.placement:
                place(model=model, placement=obj.placement, actor=actor)
            prices = {"price_input": obj.price_input, "price_output": obj.price_output}
            set_price(model=model, actor=actor, **prices)
        except CatalogueError as error:
            self.message_user(request, str(error), messages.ERROR)
