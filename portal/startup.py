"""Starting well: what a person reads when the database is not there."""

from __future__ import annotations

import sys
from typing import NoReturn

from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import DatabaseError, connection

from portal.config import mask

EXIT_BAD_SETTING = 2


def run(arguments: list[str]) -> None:
    """Django's command line; a database that can't be reached or has no tables is a sentence."""
    try:
        execute_from_command_line(arguments)
    except DatabaseError as error:
        explain(error)


def explain(error: DatabaseError) -> NoReturn:
    """Exit with a sentence if that is all there is to say, else raise ``error`` again."""
    given = settings.LLMASOS.database_url
    url = mask(given) or f"sqlite:///{settings.LLMASOS.data}/db.sqlite3"
    connection.close()
    try:
        if connection.vendor == "postgresql":
            _knock(given)
        tables = connection.introspection.table_names()
    except Exception as unreachable:
        reason = " ".join(str(unreachable).split())
        _leave(f"Bad setting DATABASE_URL={url!r}: the database can't be reached: {reason}")
    if "django_migrations" not in tables:
        _leave(f"The database {url!r} has no tables yet. Run: manage.py migrate")
    raise error


def _knock(url: str) -> None:
    """Connect once without the pool, which waits long and then can't say why."""
    import psycopg

    psycopg.connect(url, connect_timeout=5).close()


def _leave(sentence: str) -> NoReturn:
    sys.stderr.write(sentence + "\n")
    sys.exit(EXIT_BAD_SETTING)
