"""The catalogue in templates of apps that lie below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django import template
from django.utils.translation import gettext

from portal.catalogue.selectors import encoders_among, visible_models

register = template.Library()
PROGRESS = (
    "Asking the hub for %(what)s",
    "Fetching %(what)s",
    "Fetched %(what)s",
    "Copying %(what)s",
    "Checking %(what)s",
    "Waiting: %(what)s is being prepared by another process",
    "%(what)s is already prepared",
    "%(what)s is prepared",
)
"""Sentences of the engine room that name something. It has no Django, so they come in English."""


@register.filter
def told(message: str) -> str:
    """What preparing a model does now, in the reader's language."""
    translated = gettext(message) if message else ""
    if translated != message:
        return translated
    for sentence in PROGRESS:
        before, after = sentence.split("%(what)s")
        if message.startswith(before) and message.endswith(after):
            what = message.removeprefix(before).removesuffix(after)
            return gettext(sentence) % {"what": what}
    return message


@register.filter
def megabytes(count: int) -> str:
    """A number of bytes as the command line and the documents say it, in powers of ten."""
    if count < 1_000_000_000:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"


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
