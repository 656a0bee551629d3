"""The portal's environment, typed. A bad value stops the start and names itself.

Every setting is an environment variable of the same name in capitals; ``.env`` is not read.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

UNIX_SOCKET_LIMIT = 100
"""Bytes in a unix socket's path that every system accepts (Linux 107, macOS 103)."""

MODEL_ID = r"^[a-z0-9][a-z0-9._-]*$"
"""Names of catalogue models: they are folder names and parts of Redis keys as well."""

MAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}
"""Schemes of ``EMAIL_URL`` (plain, STARTTLS, TLS from the start) and their usual ports."""

Listing = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Read once, at start-up."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    data: Path = Path("data")
    port: int = Field(default=8000, ge=1, le=65535)
    host: str = "127.0.0.1"
    debug: bool = False
    database_url: str = ""
    redis_url: str = ""
    public_url: str = ""
    allowed_hosts: Listing = ("localhost", "127.0.0.1", "[::1]")
    cors_origins: Listing = ()
    trusted_proxies: int = Field(default=0, ge=0, le=10)
    hsts_seconds: int = Field(default=86400, ge=0)
    default_model: str = Field(default="gemma-3-270m", pattern=MODEL_ID, max_length=64)
    embedding_model: str = Field(
        default="all-minilm-l6-v2", pattern=rf"^$|{MODEL_ID}", max_length=64
    )
    email_url: str = ""
    email_from: str = "LLMasOS <noreply@localhost>"
    signups: bool = True
    deletion_grace_days: int = Field(default=14, ge=0, le=365)
    oidc_client_id: str = ""
    oidc_client_secret: str = ""
    oidc_name: str = Field(default="Single sign-on", min_length=1, max_length=40)
    oidc_signups: bool = True
    oidc_url: str = ""
    queue_limit: int = Field(default=1000, ge=1)
    anonymous_jobs_per_hour: int = Field(default=60, ge=0)
    api_requests_per_minute: int = Field(default=600, ge=1)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = False

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if origin != "*" and (
                parts.scheme not in ("http", "https")
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError("must be * or origins like https://example.org, with commas")
        return value

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgres://", "postgresql://")):
            raise ValueError("must start with sqlite:///, postgres:// or postgresql://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("public_url")
    @classmethod
    def _public(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be like https://example.org or https://example.org/prefix")
        if parts.query or parts.fragment:
            raise ValueError("must have neither a query nor a fragment")
        return value

    @field_validator("email_url")
    @classmethod
    def _email(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in MAIL_PORTS or not parts.hostname):
            raise ValueError("must be like smtp+tls://user:password@host:587")
        return value

    @field_validator("oidc_url")
    @classmethod
    def _oidc(cls, value: str, info: ValidationInfo) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be like https://sign-in.example.org/realm")
        if value and not info.data.get("oidc_client_id"):
            raise ValueError("needs OIDC_CLIENT_ID, the name by which the provider knows us")
        return value.rstrip("/")

    @field_validator("log_level", mode="before")
    @classmethod
    def _level(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @property
    def https(self) -> bool:
        """Whether people reach us over TLS."""
        return self.url.startswith("https://")

    @cached_property
    def prefix(self) -> str:
        """The path below which a proxy shows us, without a trailing slash; usually empty."""
        return urlsplit(self.url).path.rstrip("/")

    @cached_property
    def hosts(self) -> list[str]:
        """Host names that requests may name: the listed ones and that of ``public_url``."""
        public = urlsplit(self.public_url).hostname
        return list(dict.fromkeys([*self.allowed_hosts, *([public] if public else [])]))

    @cached_property
    def mail(self) -> dict[str, object]:
        """Django's ``EMAIL_…`` settings; the console where ``email_url`` is empty."""
        backend = "django.core.mail.backends.{}.EmailBackend"
        if not self.email_url:
            return {"EMAIL_BACKEND": backend.format("console")}
        parts = urlsplit(self.email_url)
        return {
            "EMAIL_BACKEND": backend.format("smtp"),
            "EMAIL_HOST": parts.hostname,
            "EMAIL_PORT": parts.port or MAIL_PORTS[parts.scheme],
            "EMAIL_HOST_USER": unquote(parts.username or ""),
            "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
            "EMAIL_USE_TLS": parts.scheme == "smtp+tls",
            "EMAIL_USE_SSL": parts.scheme == "smtps",
            "EMAIL_TIMEOUT": 10,
        }

    @cached_property
    def redis(self) -> str:
        """The Redis to use: the one given, or the embedded Valkey's socket in ``data``."""
        return self.redis_url or f"unix://{quote(str(self.redis_socket))}"

    @cached_property
    def redis_socket(self) -> Path:
        """Where the embedded Valkey listens; a short path where ``data`` lies too deep for one."""
        path = self.data / "redis" / "redis.sock"
        if len(os.fsencode(path)) <= UNIX_SOCKET_LIMIT:
            return path
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108
        return runtime / f"llmasos-{_fingerprint(path)}.sock"

    @cached_property
    def url(self) -> str:
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Secret key and the pepper of API keys: made on first use, readable by us only."""
        path = self.data / "secret.json"
        self.data.mkdir(parents=True, exist_ok=True)
        if not os.access(self.data, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{self.data} can't be written by this user")
        if not path.exists():
            made = {"secret_key": secrets.token_urlsafe(64), "pepper": secrets.token_urlsafe(64)}
            draft = path.with_name(f".secret.{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(made))
            try:  # whoever is first wins; a second process reads the winner's
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        try:
            loaded = json.loads(path.read_text())
            return {name: str(loaded[name]) for name in ("secret_key", "pepper")}
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path} is damaged; restore it, or delete it to begin anew") from None


def mask(value: str) -> str:
    """``value`` without the password that a URL in it may carry."""
    return re.sub(r"://[^/@]*@", "://…@", value)


def _fingerprint(path: Path) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
