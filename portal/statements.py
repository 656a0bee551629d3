"""Statements that every request runs: put together once, and not each time.

Django takes several times as long to write a statement as a database takes to answer it. Values
still go in and come out through the models' fields, so that PostgreSQL and SQLite say the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache, cached_property
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model


class Columns:
    """What a statement selects of a model's table, and the instances in its rows.

    ``alias`` is what the statement calls the table. With ``names`` only those fields are read; the
    others when they are asked for.
    """

    def __init__(self, model: type[Model], alias: str, names: Collection[str]) -> None:
        fields = [f for f in model._meta.concrete_fields if not names or f.name in names]
        self._model = model
        self._names = [field.attname for field in fields]
        self._columns: list[Any] = [field.get_col(alias) for field in fields]
        self.sql = ", ".join(f'{alias}."{field.column}"' for field in fields)

    def __len__(self) -> int:
        return len(self._columns)

    @cached_property
    def _converted(self) -> list[tuple[int, Any]]:
        """The columns whose values the database's driver gives otherwise than we know them."""
        database = connections[DEFAULT_DB_ALIAS]
        columns = enumerate(self._columns)
        return [(at, column) for at, column in columns if _converters(column, database)]

    def read(self, values: Sequence[Any]) -> Model:
        found = list(values)
        database = connections[DEFAULT_DB_ALIAS]
        for at, column in self._converted:
            for convert in _converters(column, database):
                found[at] = convert(found[at], column, database)
        return self._model.from_db(database.alias, self._names, found)


def _converters(column: Any, database: Any) -> list[Any]:
    return [*database.ops.get_db_converters(column), *column.get_db_converters(database)]


class Selection:
    """A SELECT written by hand, each ``{alias}`` in it a table whose columns stand there first.

    ``models`` says of which model each alias is, or of which model and fields.
    """

    def __init__(
        self, text: str, **models: type[Model] | tuple[type[Model], Collection[str]]
    ) -> None:
        self._text = text
        self._models = models

    @cached_property
    def _parts(self) -> dict[str, Columns]:
        """Put together when it is first asked: now not all models may be there yet."""
        return {
            alias: Columns(*((what[0], alias, what[1]) if isinstance(what, tuple)
                             else (what, alias, ())))
            for alias, what in self._models.items()
        }  # fmt: skip

    @cached_property
    def sql(self) -> str:
        return self._text.format(**{alias: part.sql for alias, part in self._parts.items()})

    def first(self, *values: Any) -> list[Any] | None:
        """An instance for each alias, in order, then what else the statement selects."""
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(self.sql, values)
            row = cursor.fetchone()
        if row is None:
            return None
        found: list[Any] = []
        for part in self._parts.values():
            found.append(part.read(row[: len(part)]))
            row = row[len(part) :]
        return [*found, *row]


def insert(row: Model) -> None:
    """``row.save(force_insert=True)`` for a model that makes its key itself and whose rows nobody
    listens for: no signal is sent. Raises ``IntegrityError``."""
    statement, fields = _insertion(type(row))
    database = connections[DEFAULT_DB_ALIAS]
    values = [field.get_db_prep_save(field.pre_save(row, True), database) for field in fields]
    with database.cursor() as cursor:
        cursor.execute(statement, values)
    row._state.adding, row._state.db = False, database.alias


@cache
def _insertion(model: type[Model]) -> tuple[str, list[Any]]:
    fields = list(model._meta.local_concrete_fields)
    columns = ", ".join(f'"{field.column}"' for field in fields)
    holes = ", ".join(["%s"] * len(fields))
    table = model._meta.db_table  # like the columns' names ours, and nobody else's
    return f'INSERT INTO "{table}" ({columns}) VALUES ({holes})', fields  # noqa: S608
