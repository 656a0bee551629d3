"""``manage.py users``: people, from the console."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.accounts.models import User
from portal.accounts.selectors import by_email, everybody
from portal.accounts.services import AccountError, operator_link, set_active
from portal.teams.services import register


class Command(BaseCommand):
    help = "Add, list and disable users; make operators."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        add = verbs.add_parser("add", help="make a user")
        add.add_argument("email")
        add.add_argument("--password-stdin", action="store_true", help="read it from stdin")
        add.add_argument("--operator", action="store_true", help="may see and steer everything")
        verbs.add_parser("list", help="show everybody")
        for verb in ("disable", "enable"):
            verbs.add_parser(verb).add_argument("email")
        verbs.add_parser("operator-link", help="print a one-time link that makes an operator")

    def handle(self, *, verb: str, **options: Any) -> None:
        if verb == "add":
            self._add(options["email"], options["password_stdin"], options["operator"])
        elif verb == "list":
            self._list()
        elif verb == "operator-link":
            self.stdout.write(operator_link())
        else:
            user = _find(options["email"])
            set_active(user=user, active=verb == "enable")
            self.stdout.write(f"{user.email} is {verb}d.")

    def _add(self, email: str, from_stdin: bool, operator: bool) -> None:
        if from_stdin:
            password = sys.stdin.readline().rstrip("\r\n")
        elif sys.stdin.isatty():
            password = getpass.getpass()
        else:
            raise CommandError("Give the password on standard input, with --password-stdin.")
        try:
            user = register(email=email, password=password, operator=operator)
        except AccountError as error:
            raise CommandError(str(error)) from None
        role = "operator" if operator else "user"
        self.stdout.write(f"Added {role} {user.email}.")

    def _list(self) -> None:
        for user in everybody():
            marks = ["operator"] * user.is_superuser + ["disabled"] * (not user.is_active)
            self.stdout.write("\t".join([user.email, f"{user.date_joined:%Y-%m-%d}", *marks]))


def _find(email: str) -> User:
    user = by_email(email)
    if user is None:
        raise CommandError(f"No user {email}. manage.py users list shows everybody.")
    return user
