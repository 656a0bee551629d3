"""``manage.py keys``: API keys, from the console."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, date, datetime, time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.accounts.selectors import by_email
from portal.teams.keys import Terms
from portal.teams.models import ApiKey, everyday_scopes
from portal.teams.services import KeyRefused, create_key, ensure_personal_team, revoke_key


class Command(BaseCommand):
    help = "Create, list and revoke API keys of users' personal teams."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="print a new key, and nothing else")
        create.add_argument("--user", required=True, metavar="EMAIL")
        create.add_argument("--name", required=True)
        create.add_argument(
            "--scope", action="append", choices=ApiKey.Scope.values, dest="scopes",
            help=f"what it may do, once for each; else {', '.join(everyday_scopes())}",
        )  # fmt: skip
        create.add_argument(
            "--model", action="append", metavar="ID", dest="allowed_models",
            help="a model that it may use, once for each; else all",
        )  # fmt: skip
        create.add_argument(
            "--last-day", type=_day, metavar="YYYY-MM-DD", help="until its end, UTC"
        )
        for limit in ("requests-per-minute", "tokens-per-minute", "monthly-tokens"):
            create.add_argument(f"--{limit}", type=int, metavar="N", help="else no limit")
        shown = verbs.add_parser("list", help="show keys by prefix")
        shown.add_argument("--user", metavar="EMAIL", help="of this user only")
        verbs.add_parser("revoke", help="end a key").add_argument("prefix")

    def handle(self, *, verb: str, **options: Any) -> None:
        if verb == "create":
            self._create(options["user"], options["name"], _terms(options))
        elif verb == "list":
            self._list(options["user"])
        else:
            self._revoke(options["prefix"])

    def _create(self, email: str, name: str, terms: Terms) -> None:
        user = by_email(email)
        if user is None:
            raise CommandError(f"No user {email}. manage.py users add makes one.")
        try:
            team = ensure_personal_team(user=user)
            _key, plaintext = create_key(team=team, user=user, name=name, terms=terms)
        except KeyRefused as refusal:
            option = _OPTIONS.get(refusal.field, refusal.field.replace("_", "-"))
            raise CommandError(f"--{option}: {refusal}") from None
        self.stdout.write(plaintext)

    def _list(self, email: str | None) -> None:
        keys = ApiKey.objects.select_related("created_by").order_by("created_at")
        if email:
            keys = keys.filter(created_by__email__iexact=email)
        for key in keys:
            state = "revoked" if key.revoked_at else "live"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
            shown = f"llm_{key.prefix}_…{key.last_four}"
            self.stdout.write("\t".join([shown, key.created_by.email, key.name, state, used]))

    def _revoke(self, prefix: str) -> None:
        wanted = prefix.removeprefix("llm_")[:8]
        key = ApiKey.objects.filter(prefix=wanted).first()
        if key is None:
            raise CommandError(f"No key {prefix}. manage.py keys list shows them by prefix.")
        if not revoke_key(key=key):
            raise CommandError(f"{key.name} was revoked already.")
        self.stdout.write(f"Revoked {key.name}.")


_OPTIONS = {"scopes": "scope", "allowed_models": "model", "expires_at": "last-day"}


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no day. Write it like 2027-01-31.") from None


def _terms(options: dict[str, Any]) -> Terms:
    day = options["last_day"]
    return Terms(
        scopes=options["scopes"] or everyday_scopes(),
        allowed_models=options["allowed_models"] or (),
        expires_at=datetime.combine(day, time.max, UTC) if day else None,
        requests_per_minute=options["requests_per_minute"],
        tokens_per_minute=options["tokens_per_minute"],
        monthly_tokens=options["monthly_tokens"],
    )
