"""``manage.py up``: everything that one machine needs, in one command."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from portal.supervisor import start
from portal.supervisor.console import Console


class Command(BaseCommand):
    help = "Start portal, worker, portal tasks and an embedded Redis, and keep them running."
    requires_system_checks = ()

    def handle(self, **options: Any) -> None:
        sys.exit(start.up(Console()))
