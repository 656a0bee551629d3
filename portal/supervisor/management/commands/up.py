"""``manage.py up``: everything that one machine needs, in one command."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from portal.supervisor import start
from portal.supervisor.children import die_with_parent
from portal.supervisor.console import Console


class Command(BaseCommand):
    help = "Start portal, worker, portal tasks and an embedded Redis, and keep them running."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--with-parent", action="store_true", help="stop when the process that started it does"
        )

    def handle(self, *, with_parent: bool, **options: Any) -> None:
        if with_parent:
            die_with_parent(signal.SIGTERM)
        sys.exit(start.up(Console()))
