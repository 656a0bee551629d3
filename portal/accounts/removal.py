"""Removing a row and all that hangs on it, however much that is."""

from __future__ import annotations

from django.db.models import CASCADE, Model

BATCH = 500


def empty(row: Model) -> None:
    """Delete what would fall with ``row``, a batch a transaction; safe to call again after a crash.

    Raises ``ProtectedError`` or ``RestrictedError`` when something must not fall.
    """
    for relation in row._meta.related_objects:
        if getattr(relation, "on_delete", None) is not CASCADE:
            continue
        manager = relation.related_model._base_manager
        held = manager.filter(**{relation.field.name: row}).order_by("pk")
        while keys := list(held.values_list("pk", flat=True)[:BATCH]):
            manager.filter(pk__in=keys).delete()
