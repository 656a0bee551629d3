"""``manage.py worker``: one more worker process, here or on another machine."""

from __future__ import annotations

import os
from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.supervisor import tree


class Command(BaseCommand):
    help = "Serve a prepared model. What follows -- goes to `python -m inference_workers serve`."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", default="", help="its id; the default model if not given")
        parser.add_argument("--name", default="", help="no two live workers may share one")
        parser.add_argument("more", nargs=REMAINDER, help="-- --slots N --kv-memory SIZE …")

    def handle(self, *, model: str, name: str, more: list[str], **options: Any) -> None:
        model = model or settings.LLMASOS.default_model
        folder = settings.LLMASOS.data / "models" / model
        if not (folder / "manifest.json").exists():
            raise CommandError(
                f"{model} is not prepared in DATA={settings.LLMASOS.data}. "
                f"Run: manage.py models prepare {model}"
            )
        passed = tuple(more[1:] if more[:1] == ["--"] else more)
        command = tree.worker_command(model, name=name, more=passed)
        os.chdir(settings.BASE_DIR)
        os.execve(command[0], command, {**os.environ, **tree.worker_environment()})  # noqa: S606
