"""One connection that stays: when SQLite's last one closes, it copies the whole WAL back and
deletes it, which would happen after almost every request and cost several times its own time."""

from __future__ import annotations

import sqlite3

from django.conf import settings

_held: list[sqlite3.Connection] = []


def hold_open() -> None:
    """Keep the embedded database's WAL open for the life of this process. Elsewhere a no-op."""
    database = settings.DATABASES["default"]
    if not str(database["ENGINE"]).endswith("sqlite3") or _held:
        return
    try:
        held = sqlite3.connect(str(database["NAME"]), check_same_thread=False)
        held.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error:
        return  # not there yet; requests will say so
    _held.append(held)
