"""The catalogue in templates of apps that lie below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django import template

from portal.catalogue.selectors import encoders_among, visible_models

register = template.Library()


@register.simple_tag
def model_ids(also: Iterable[str] = ()) -> list[str]:
    """Models that can be asked now, and those of ``also`` that can't."""
    return list(dict.fromkeys((*visible_models().values_list("pk", flat=True), *also)))


@register.simple_tag
def example_model(ids: Sequence[str]) -> dict[str, Any]:
    """For snippets: the first of ``ids`` that goes on from a text, and where there is none the
    first encoder. ``embeds`` says which of the two it is."""
    encoders = encoders_among(ids)
    texts = [model_id for model_id in ids if model_id not in encoders]
    return {"id": (texts or ids)[0], "embeds": not texts}
