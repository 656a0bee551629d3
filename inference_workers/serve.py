"""``python -m inference_workers serve``: settings in, exit code out.

``EXIT_REFUSED`` (2) means that starting it again won't help: one JSON line on standard error names
the setting or the model and the remedy.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

from inference_workers import config, logs
from inference_workers.app import WakeUps
from inference_workers.config import WorkerSettings, worker_settings
from inference_workers.errors import ModelError, WorkerError
from inference_workers.models.manifest import Manifest, read_manifest
from inference_workers.runtime import EXIT_REFUSED, Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """``python -m inference_workers serve``: the exit code is the process'."""
    try:
        settings = worker_settings(args, os.environ)
        logs.configure(settings.log_level, worker=settings.name, model=settings.model)
        manifest = read_manifest(settings.path)
        _check_id(settings, manifest)
    except WorkerError as error:
        refusal = {"error": {"code": error.code, "message": error.message}}
        print(json.dumps(refusal), file=sys.stderr)
        return EXIT_REFUSED
    os.nice(settings.nice)
    runtime = Runtime(
        settings,
        manifest,
        lambda claim_all: WakeUps(
            settings.redis_url, model=settings.model, worker=settings.name, claim_all=claim_all
        ),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, frame: _end(runtime, caught))
    code = runtime.run()
    sys.stderr.flush()
    # Other threads may be in the middle of a kernel or a blocking read: nothing is left to save.
    os._exit(code)


def _end(runtime: Runtime, caught: int) -> None:
    """The first signal drains; a second one ends the process at once."""
    signal.signal(caught, signal.SIG_DFL)
    runtime.end(signal.Signals(caught).name)


def _check_id(settings: WorkerSettings, manifest: Manifest) -> None:
    if manifest.id != settings.model:
        raise ModelError(
            f"{settings.path} holds {manifest.id}, not {settings.model}. Give the folder of the "
            "model, or prepare it there."
        )
