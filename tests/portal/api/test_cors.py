"""Pages elsewhere may call the API only where the installation says so."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pydantic import ValidationError

from portal.config import Settings

THERE = "https://app.example.org"
ASKING = {
    "Origin": THERE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang",
}


def allowed(path: str) -> str | None:
    response = Client().options(path, headers=ASKING)
    assert "Access-Control-Allow-Credentials" not in response.headers
    return response.headers.get("Access-Control-Allow-Origin")


def test_nobody_elsewhere_may_call_unless_told(db: None) -> None:
    assert allowed("/v1/chat/completions") is None


def test_a_named_origin_may_call_the_api_and_nothing_else(db: None, settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = [THERE]
    assert allowed("/v1/chat/completions") == THERE
    assert allowed("/api/v1/jobs") == THERE
    assert allowed("/teams/keys") is None
    settings.CORS_ALLOWED_ORIGINS = ["https://other.example.org"]
    assert allowed("/v1/chat/completions") is None


@pytest.mark.parametrize("origin", ["app.example.org", "https://a.example/path", "ftp://a", "null"])
def test_an_origin_that_is_none_stops_the_start(origin: str) -> None:
    with pytest.raises(ValidationError, match="origins like"):
        Settings(cors_origins=(origin,))
