"""``manage.py setup``: tables, apps and the default model, where there is no ``up`` to do it."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from portal.supervisor import start
from portal.supervisor.console import Console


class Command(BaseCommand):
    help = "Make tables, built-in apps and the default model; may be run again at any time."
    requires_system_checks = ()

    def handle(self, **options: Any) -> None:
        sys.exit(start.setup(Console()))
