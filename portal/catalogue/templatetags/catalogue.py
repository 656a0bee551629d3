"""The catalogue in templates of apps that lie below it."""

from __future__ import annotations

from collections.abc import Iterable

from django import template

from portal.catalogue.selectors import visible_models

register = template.Library()


@register.simple_tag
def model_ids(also: Iterable[str] = ()) -> list[str]:
    """Models that can be asked now, and those of ``also`` that can't."""
    return list(dict.fromkeys((*visible_models().values_list("pk", flat=True), *also)))
