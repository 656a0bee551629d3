"""Headers, cookies, proxies and prefixes: safe as it starts, and clean behind TLS."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from portal.accounts.models import User
from portal.network import client_address, is_from_this_machine, quota_address
from portal.prefix import Prefixed
from tests.conftest import PASSWORD
from tests.environment import Valkey

PROXIED = {
    "PUBLIC_URL": "https://llm.example/ai",
    "TRUSTED_PROXIES": "1",
    "EMAIL_URL": "smtp+tls://user:secret@mail.example:587",
}


def portal(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py shell -c`` (or a command given as ``!words``) with settings of its own."""
    command = code[1:].split() if code.startswith("!") else ["shell", "-v", "0", "-c", code]
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        capture_output=True,
        text=True,
        cwd=settings.BASE_DIR,
        env={"PATH": os.environ["PATH"], "DATA": str(tmp_path), **environment},
    )


def directives(header: str) -> dict[str, list[str]]:
    parts = [part.split() for part in header.split(";")]
    return {name: values for name, *values in parts}


class TestContentPolicy:
    def test_scripts_need_a_nonce_and_nothing_inline_runs(self, client: Client, db: None) -> None:
        policy = directives(client.get("/models/").headers["Content-Security-Policy"])
        for name in ("script-src", "style-src"):
            allowed = [value for value in policy[name] if not value.startswith("'nonce-")]
            assert allowed == ["'self'"]
        assert policy["object-src"] == policy["frame-ancestors"] == ["'none'"]
        assert "http:" not in str(policy).replace("http://", "")
        assert any(value.startswith("ws://") for value in policy["connect-src"])

    def test_only_the_admin_site_is_looser(self, client: Client, operator: User) -> None:
        client.force_login(operator, "django.contrib.auth.backends.ModelBackend")
        loose = directives(client.get("/admin/").headers["Content-Security-Policy"])
        strict = directives(client.get("/models/").headers["Content-Security-Policy"])
        assert "'unsafe-inline'" in loose["script-src"]
        assert "'unsafe-inline'" not in strict["script-src"]
        assert loose["connect-src"] == strict["connect-src"]


def test_without_redis_people_still_sign_in(client: Client, outsider: User, valkey: Valkey) -> None:
    valkey.stop(signal.SIGKILL)
    try:
        form = {"login": outsider.email, "password": PASSWORD}
        assert client.post("/accounts/login/", form).status_code == 302
    finally:
        valkey.start()


def test_a_form_of_another_site_is_refused(db: None) -> None:
    strict = Client(enforce_csrf_checks=True)
    page = strict.get("/accounts/signup/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    assert token
    form = {"email": "x@example.org", "csrfmiddlewaretoken": token[1]}
    foreign = strict.post("/accounts/signup/", form, HTTP_ORIGIN="https://evil.example")
    assert foreign.status_code == 403
    same = strict.post("/accounts/signup/", form, HTTP_ORIGIN="http://testserver")
    assert same.status_code == 200


def test_another_hosts_name_is_refused(client: Client) -> None:
    assert client.get("/models/", HTTP_HOST="evil.example").status_code == 400


def test_the_language_follows_the_browser_and_then_the_choice(client: Client, db: None) -> None:
    chinese = {"HTTP_ACCEPT_LANGUAGE": "zh-CN,zh;q=0.9"}
    assert client.get("/models/", **chinese).headers["Content-Language"] == "zh-hans"
    client.post("/i18n/setlang/", {"language": "en"})
    assert client.get("/models/", **chinese).headers["Content-Language"] == "en"


class TestAddresses:
    @pytest.mark.parametrize(
        ("remote", "header", "proxies", "client"),
        [
            ("192.0.2.1", None, 0, "192.0.2.1"),
            ("192.0.2.1", "10.0.0.1", 0, "192.0.2.1"),
            ("10.0.0.9", "203.0.113.5", 1, "203.0.113.5"),
            ("10.0.0.9", "6.6.6.6, 203.0.113.5", 1, "203.0.113.5"),
            ("10.0.0.9", "6.6.6.6, 203.0.113.5, 10.0.0.8", 2, "203.0.113.5"),
            ("10.0.0.9", "203.0.113.5", 2, "10.0.0.9"),
            ("::ffff:192.0.2.1", None, 0, "192.0.2.1"),
            ("fe80::1%eth0", None, 0, "fe80::1"),
            (None, None, 0, "unknown"),
        ],
    )
    def test_only_what_our_proxies_wrote_counts(
        self, remote: str | None, header: str | None, proxies: int, client: str
    ) -> None:
        assert client_address(remote, header, proxies=proxies) == client

    @given(st.text(), st.text(), st.integers(0, 5))
    def test_no_header_breaks_it(self, remote: str, header: str, proxies: int) -> None:
        quota_address(client_address(remote, header, proxies=proxies))

    def test_an_unread_proxy_header_does_not_stop_sign_in(
        self, client: Client, db: None, settings: Settings
    ) -> None:
        settings.LLMASOS = settings.LLMASOS.model_copy(update={"trusted_proxies": 3})
        answer = client.post(
            "/accounts/login/", {"login": "a@b.cc", "password": "x"}, HTTP_X_FORWARDED_FOR="1.1.1.1"
        )
        assert answer.status_code == 200

    def test_a_rebound_name_is_not_this_machine(self, rf: RequestFactory) -> None:
        assert is_from_this_machine(rf.get("/", HTTP_HOST="127.0.0.1:8000"))
        foreign = {"HTTP_HOST": "localhost", "HTTP_ORIGIN": "http://evil.example"}
        assert not is_from_this_machine(rf.post("/", **foreign))


@pytest.mark.parametrize(
    ("kind", "path", "seen"),
    [
        ("http", "/ai/models/", "/ai/models/"),
        ("http", "/models/", "/ai/models/"),
        ("http", "/ai", "/ai"),
        ("http", "/aid", "/ai/aid"),
        ("websocket", "/ai/ws/jobs", "/ws/jobs"),
        ("websocket", "/ws/jobs", "/ws/jobs"),
    ],
)
async def test_a_prefix_works_whether_or_not_the_proxy_takes_it_off(
    kind: str, path: str, seen: str
) -> None:
    scopes: list[dict[str, str]] = []

    async def inside(scope: dict[str, str], receive: object, send: object) -> None:
        scopes.append(scope)

    await Prefixed(inside, prefix="/ai")({"type": kind, "path": path}, None, None)
    await Prefixed(inside, prefix="")({"type": kind, "path": path}, None, None)
    assert [scope["path"] for scope in scopes] == [seen, path]


class TestSettings:
    def test_behind_tls_check_deploy_is_clean(self, tmp_path: Path) -> None:
        done = portal("!check --deploy --fail-level WARNING", tmp_path, **PROXIED)
        found = re.findall(r"\((\w+\.\w+)\)", done.stderr)
        assert set(found) <= {"django_vite.W001"}, done.stderr

    def test_cookies_redirects_mail_and_prefix_follow_from_the_public_url(
        self, tmp_path: Path
    ) -> None:
        code = (
            "import json; from django.conf import settings as s; from django.urls import reverse;"
            "print(json.dumps([s.SESSION_COOKIE_SECURE, s.SESSION_COOKIE_PATH, "
            "s.CSRF_TRUSTED_ORIGINS, s.SECURE_SSL_REDIRECT, s.EMAIL_HOST_PASSWORD, "
            "s.EMAIL_USE_TLS, s.ACCOUNT_EMAIL_VERIFICATION, 'llm.example' in s.ALLOWED_HOSTS, "
            "reverse('teams:keys'), s.STATIC_URL]))"
        )
        done = portal(code, tmp_path, **PROXIED)
        assert json.loads(done.stdout) == [
            *(True, "/ai/", ["https://llm.example"], True, "secret", True, "mandatory", True),
            *("/ai/teams/keys", "/ai/static/"),
        ]

    def test_two_instances_on_one_machine_do_not_share_cookies(self, tmp_path: Path) -> None:
        code = "from portal.settings import *; print(SESSION_COOKIE_NAME, CSRF_COOKIE_NAME)"
        one, two = (portal(code, tmp_path / name).stdout.split() for name in ("a", "b"))
        assert len(one) == len(two) == 2
        assert not set(one) & set(two)

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("PORT", "eighty", "integer"),
            ("PUBLIC_URL", "llm.example", "must be like https://"),
            ("DATABASE_URL", "mysql://x", "must start with sqlite:///"),
            ("EMAIL_URL", "mail.example", "must be like smtp"),
            ("LOG_LEVEL", "loud", "INFO"),
            ("TRUSTED_PROXIES", "-1", "greater"),
            ("DEFAULT_MODEL", "../x", "match"),
            ("EMBEDDING_MODEL", "A b", "match"),
            ("DATA", "/proc/nothing", "/proc/nothing"),
        ],
    )
    def test_a_bad_setting_stops_the_start_and_is_named(
        self, tmp_path: Path, name: str, value: str, said: str
    ) -> None:
        done = portal("!check", tmp_path, **{name: value})
        assert done.returncode == 2
        assert f"Bad setting {name}=" in done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_database_out_of_reach_is_a_sentence_without_its_password(
        self, tmp_path: Path
    ) -> None:
        url = "postgresql://me:hunter2@127.0.0.1:1/none"
        done = portal("!migrate", tmp_path, DATABASE_URL=url)
        assert done.returncode == 2
        assert "Bad setting DATABASE_URL=" in done.stderr
        assert "hunter2" not in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_database_without_tables_says_what_to_run(self, tmp_path: Path) -> None:
        done = portal("!users list", tmp_path)
        assert done.returncode == 2
        assert "manage.py migrate" in done.stderr
        assert "Traceback" not in done.stderr

    def test_secrets_are_made_once_and_are_ours_alone(self, tmp_path: Path) -> None:
        portal("!check", tmp_path)
        secret = tmp_path / "secret.json"
        before = secret.read_text()
        assert secret.stat().st_mode & 0o777 == 0o600
        portal("!version", tmp_path)
        assert secret.read_text() == before
        secret.write_text("{broken")
        done = portal("!check", tmp_path)
        assert done.returncode == 2
        assert "secret.json" in done.stderr
