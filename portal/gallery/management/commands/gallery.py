"""``manage.py gallery sync``: bring the built-in apps up to date."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from portal.gallery.builtin import sync_builtin


class Command(BaseCommand):
    help = "The gallery's own apps: 'sync' makes them what this release says."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["sync"])

    def handle(self, *args: Any, **options: Any) -> None:
        changed = sync_builtin()
        self.stdout.write(f"Synced: {', '.join(changed)}" if changed else "Nothing to sync.")
