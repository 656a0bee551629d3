"""A copy of everything that is kept about one person, as one ZIP of JSON files.

Each app says what it keeps in its own ``export.py``: a function of the user, marked with
``@section``, that yields plain dictionaries. Rows are written as they are read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.module_loading import autodiscover_modules

from portal.accounts.models import User

Rows = Iterable[dict[str, Any]]
_sections: dict[str, Callable[[User], Rows]] = {}


def section(name: str) -> Callable[[Callable[[User], Rows]], Callable[[User], Rows]]:
    """The function's rows become ``<name>.json``."""

    def keep(rows: Callable[[User], Rows]) -> Callable[[User], Rows]:
        _sections[name] = rows
        return rows

    return keep


def write_export(user: User, file: IO[bytes]) -> None:
    """The ZIP, written into ``file``."""
    autodiscover_modules("export")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in sorted(_sections.items()):
            with archive.open(f"{name}.json", "w") as entry:
                for text in _as_json(rows(user)):
                    entry.write(text.encode(errors="surrogatepass"))


def _as_json(rows: Rows) -> Iterator[str]:
    before = "[\n"
    for row in rows:
        yield before + json.dumps(row, ensure_ascii=False, cls=DjangoJSONEncoder)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


@section("account")
def account(user: User) -> Rows:
    from allauth.account.models import EmailAddress
    from allauth.mfa.models import Authenticator
    from allauth.usersessions.models import UserSession

    def all_of(model: Any, *fields: str) -> list[dict[str, Any]]:
        return list(model.objects.filter(user=user).values(*fields))

    yield {
        "email": user.email,
        "name": user.name,
        "language": user.language,
        "joined": user.date_joined,
        "last_signed_in": user.last_login,
        "addresses": all_of(EmailAddress, "email", "verified", "primary"),
        "second_factors": all_of(Authenticator, "type", "created_at", "last_used_at"),
        "sessions": all_of(UserSession, "ip", "user_agent", "created_at", "last_seen_at"),
    }
