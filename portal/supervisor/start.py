"""From nothing to running: each step one line at the console, each refusal one sentence."""

from __future__ import annotations

import time

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from portal.accounts.selectors import has_operator
from portal.accounts.services import operator_link
from portal.catalogue.models import CatalogueModel
from portal.catalogue.preparation import prepare
from portal.catalogue.selectors import UnknownModel, get
from portal.catalogue.services import Busy, CatalogueError, place, sync_builtin
from portal.config import mask
from portal.gallery.builtin import sync_builtin as sync_apps
from portal.supervisor import tree
from portal.supervisor.checks import (
    Refused,
    check_data,
    check_port,
    check_redis,
    check_room_for,
)
from portal.supervisor.console import Console
from portal.supervisor.lock import AlreadyRunning, Lock
from portal.supervisor.supervisor import Supervisor

EXIT_REFUSED = 2
BYTES_PER_PARAMETER = 5
"""While it is prepared, a model lies on the disk as it came and as it is served."""


def up(console: Console) -> int:
    """Run until told to stop; the process' exit code."""
    begun = time.monotonic()
    ours = settings.LLMASOS
    try:
        check_data(ours)
        with Lock(ours.data) as lock:
            supervisor = Supervisor(say=console.say, lock=lock)
            supervisor.listen()
            try:
                supervisor.start_guard()
                check_port(ours)
                _prepare(supervisor, console)
                supervisor.on_ready = lambda: _ready(console, time.monotonic() - begun)
                supervisor.run()
            except KeyboardInterrupt:
                pass
            finally:
                console.say("Stopping.")
                supervisor.stop()
            console.say("Stopped.")
            return 0
    except AlreadyRunning as error:
        console.say(_running(error))
    except Refused as error:
        console.say(str(error))
    return EXIT_REFUSED


def setup(console: Console) -> int:
    """What is there once and before anything runs: tables, what comes with the program, the
    default model. For places where something else than ``up`` starts the processes."""
    try:
        check_data(settings.LLMASOS)
        _database(console)
        _models(console)
    except Refused as error:
        console.say(str(error))
        return EXIT_REFUSED
    _operator(console)
    return 0


def _running(error: AlreadyRunning) -> str:
    url = error.state.get("url", "an address that it will print")
    return (
        f"{error} at {url}, with DATA={settings.LLMASOS.data}. Stop it with Ctrl-C where it runs, "
        f"or start a second one beside it: make run PORT={settings.LLMASOS.port + 1} DATA=./data2"
    )


def _prepare(supervisor: Supervisor, console: Console) -> None:
    console.say(f"LLMasOS, data in {settings.LLMASOS.data}")
    _redis(supervisor, console)
    _database(console)
    _models(console)
    supervisor.add(tree.portal())
    supervisor.add(tree.tasks())
    console.step("portal, tasks and workers")


def _redis(supervisor: Supervisor, console: Console) -> None:
    console.step("redis")
    if settings.LLMASOS.redis_url:
        version = check_redis(settings.REDIS_URL)
        console.done(f"{mask(settings.REDIS_URL)}, version {version}")
        return
    settings.LLMASOS.redis_socket.unlink(missing_ok=True)
    child = supervisor.add(tree.valkey())
    supervisor.start(child)
    try:
        version = check_redis(settings.REDIS_URL, patience=30)
    except Refused:
        supervisor.wait(0)
        raise Refused(
            f"The embedded Redis does not start. See {child.log.path}, or set REDIS_URL to a "
            "server of your own. It said last: " + (" / ".join(child.tail) or "nothing")
        ) from None
    console.done(f"embedded, Valkey {version}")


def _database(console: Console) -> None:
    """Tables and what comes with the program. ``portal.startup`` explains a ``DatabaseError``."""
    console.step("database")
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if missing:
        call_command("migrate", verbosity=0, interactive=False)
    sync_builtin()
    sync_apps()
    done = f"{missing} migrations applied" if missing else "up to date"
    console.done(f"{connection.vendor}, {done}")


def _models(console: Console) -> None:
    """The default model, prepared and placed, and the one for embeddings."""
    name = settings.LLMASOS.default_model
    try:
        model = _ready_model(name, console)
        if model.embeds:
            raise Refused(
                f"DEFAULT_MODEL={name} makes embeddings and can't go on from a text. Choose "
                f"another, and set EMBEDDING_MODEL={name}."
            )
        if model.placement == CatalogueModel.Placement.OFF:
            place(model=model, placement=CatalogueModel.Placement.ALWAYS)
    except UnknownModel as error:
        raise Refused(f"DEFAULT_MODEL={name} can't be served. {error}") from None
    except CatalogueError as error:
        raise Refused(f"The model {name} can't be prepared: {error}") from None
    console.done(f"ready, {model.bytes / 1e6:.0f} MB")
    _encoder(console)


def _encoder(console: Console) -> None:
    """Everything else works without it, so nothing stops where it can't be had."""
    name = settings.LLMASOS.embedding_model
    if not name:
        return
    try:
        model = _ready_model(name, console)
    except (UnknownModel, CatalogueError, Refused) as error:
        console.done(f"not ready, so there are no embeddings. {error}")
    else:
        console.done(f"ready, {model.bytes / 1e6:.0f} MB")


def _ready_model(name: str, console: Console) -> CatalogueModel:
    """The model, prepared now where it was not."""
    console.step(f"model {name}")
    model = get(name)
    if model.state == CatalogueModel.State.READY and _files(model.id):
        return model
    console.done(f"to be prepared. Licence: {model.licence} {model.licence_url}".rstrip())
    console.step(f"model {name}")
    return _prepared(model, console)


def _files(model_id: str) -> bool:
    path = settings.LLMASOS.data / "models" / model_id / "manifest.json"
    return bool(path.exists())


def _prepared(model: CatalogueModel, console: Console) -> CatalogueModel:
    check_room_for(model.id, model.parameters * BYTES_PER_PARAMETER, settings.LLMASOS.data)
    while True:
        try:
            return prepare(model_id=model.id, progress=console.progress)
        except Busy:  # alive somewhere else, or dead and not yet given up
            time.sleep(1)
            other = get(model.id)
            if other.state == CatalogueModel.State.READY and _files(model.id):
                return other
            console.progress(other.progress, f"{other.message} (in another process)")


def _ready(console: Console, seconds: float) -> None:
    console.done(f"running (logs in {settings.LLMASOS.data / 'logs'})")
    console.say(f"\nReady after {seconds:.1f} s: {settings.LLMASOS.url}")
    _operator(console)
    console.say("Ctrl-C stops everything.\n")


def _operator(console: Console) -> None:
    if not has_operator():
        console.say(f"To become its operator, open this link once, within a day: {operator_link()}")
