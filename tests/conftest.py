"""The shared cast and stage: people and teams, a real Valkey, a private data folder.

The cast: ``member`` (developer) and ``owner`` belong to ``team``; ``outsider`` belongs to nothing
but a personal team; ``operator`` runs the place. Everybody's password is ``PASSWORD``. The stage:
``redis`` is a client of an empty Valkey at ``settings.REDIS_URL``, ``echo`` a model ready for jobs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import django
import hypothesis
import pytest
from django.conf import settings

from tests import environment
from tests.running import encoder, llama, running  # noqa: F401  (fixtures)

environment.prepare()
if not settings.DJANGO_VITE["default"]["manifest_path"].exists():  # pages without a front-end build
    settings.DJANGO_VITE["default"]["dev_mode"] = True
django.setup()  # here, because pytest-django looked for settings before they were decided

if TYPE_CHECKING:
    from redis import Redis

    from portal.accounts.models import User
    from portal.catalogue.models import CatalogueModel
    from portal.teams.models import Team

settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # cheap on purpose
PASSWORD = "correct horse battery staple"

# A busy machine is not a bug: how long one example takes says nothing about the code.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """SQLite tests use a file: threads and other processes see what a server would see."""
    from django.db import connections

    database = connections["default"].settings_dict
    if database["ENGINE"].endswith("sqlite3"):
        database["TEST"]["NAME"] = str(environment.ROOT / "test.sqlite3")


@pytest.fixture(scope="session")
def valkey() -> Iterator[environment.Valkey]:
    """One server for the session, at ``settings.REDIS_URL``."""
    server = environment.Valkey(environment.ROOT)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(valkey: environment.Valkey) -> Iterator[Redis]:
    """A client of an empty Valkey."""
    from redis import Redis

    with Redis.from_url(valkey.url, socket_timeout=None) as client:
        client.flushall()
        yield client


def _user(email: str, **fields: Any) -> User:
    from portal.accounts.models import User
    from portal.teams.services import ensure_personal_team

    user = User.objects.create_user(email, PASSWORD, **fields)
    ensure_personal_team(user=user)
    return user


@pytest.fixture
def owner(db: None) -> User:
    return _user("owner@example.org", name="Olivia Owner")


@pytest.fixture
def member(team: Team) -> User:
    from portal.teams.models import Membership

    user = _user("member@example.org", name="Mia Member")
    Membership.objects.create(team=team, user=user, role=Membership.Role.DEVELOPER)
    return user


@pytest.fixture
def team(owner: User) -> Team:
    from portal.teams.models import Membership, Team

    team = Team.objects.create(name="Research", kind=Team.Kind.SHARED)
    Membership.objects.create(team=team, user=owner, role=Membership.Role.OWNER)
    return team


def full_key(*, team: Team, user: User, name: str = "test") -> str:
    """The plaintext of a key that may do everything."""
    from portal.teams.keys import create_key
    from portal.teams.models import ApiKey

    key, plaintext = create_key(team=team, user=user, name=name)
    ApiKey.objects.filter(pk=key.pk).update(scopes=ApiKey.Scope.values)
    return plaintext


@pytest.fixture
def outsider(db: None) -> User:
    return _user("outsider@example.org", name="Otto Outsider")


@pytest.fixture
def operator(db: None) -> User:
    return _user("operator@example.org", name="Opal Operator", is_staff=True, is_superuser=True)


@pytest.fixture(scope="session")
def echo_manifest() -> dict[str, Any]:
    """The echo model's folder, prepared once by the real command where the portal looks for it."""
    folder = settings.LLMASOS.data / "models" / "echo"
    command = ("prepare", "--source", "echo", "--id", "echo", "--out", str(folder))
    subprocess.run(
        [sys.executable, "-m", "inference_workers", *command], check=True, stdout=subprocess.DEVNULL
    )
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


@pytest.fixture
def echo(db: None, echo_manifest: dict[str, Any]) -> CatalogueModel:
    """A model that takes jobs, and needs no torch to answer them."""
    from portal.catalogue.selectors import get
    from portal.catalogue.services import begin_preparing, finish_preparing, place, sync_builtin

    sync_builtin()
    begin_preparing(model=get("echo"))
    finish_preparing(model=get("echo"), manifest=echo_manifest)
    place(model=get("echo"), placement="on_demand")
    return get("echo")
