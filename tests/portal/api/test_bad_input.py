"""Bad input over HTTP: a clear error in OpenAI's form, and a portal that goes on, silently."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.running import MODEL, Running

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def send(
    running: Running, key: str | None, path: str, body: Any, **headers: str
) -> httpx2.Response:
    given = {"Content-Type": "application/json"} | headers
    if key is not None:
        given["Authorization"] = f"Bearer {key}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(running.url + path, content=content, headers=given, timeout=30)


def error(response: httpx2.Response) -> dict[str, Any]:
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert len(body["error"]["message"]) > 10
    found: dict[str, Any] = body["error"]
    return found


TABLE = [
    ("empty prompt", TEXT, {"prompt": ""}, 400, "prompt"),
    ("long prompt", TEXT, {"prompt": "x" * 20_000}, 400, "prompt"),
    ("too much asked for", TEXT, {"prompt": "x", "max_tokens": 900_000}, 400, "max_tokens"),
    ("half a surrogate", TEXT, {"prompt": "\ud83d"}, 400, "prompt"),
    ("negative tokens", TEXT, {"prompt": "x", "max_tokens": -1}, 400, "max_tokens"),
    ("absurd temperature", TEXT, {"prompt": "x", "temperature": 1e308}, 400, "temperature"),
    ("a thousand stops", TEXT, {"prompt": "x", "stop": ["a"] * 1000}, 400, "stop"),
    ("token of no model", TEXT, {"prompt": [10**9]}, 400, "prompt"),
    ("stop token of no model", TEXT, {"prompt": "x", "stop_token_ids": [10**9]}, 400, None),
    ("bias on no token", TEXT, {"prompt": "x", "logit_bias": {"99999999": 1}}, 400, "logit_bias"),
    ("unknown field", TEXT, {"prompt": "x", "colour": "red"}, 400, "colour"),
    ("no prompt", TEXT, {}, 400, "prompt"),
    ("tools", CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, None),
    ("no messages", CHAT, {"messages": []}, 400, "messages"),
    ("unknown role", CHAT, {"messages": [{"role": "x", "content": "x"}]}, 400, "messages[0].role"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_bad_fields_are_refused_by_name(
    running: Running, api_key: str, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    response = send(running, api_key, path, {"model": MODEL} | body)
    assert response.status_code == status, response.text
    found = error(response)
    assert found["param"] == param or param is None
    assert found["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b"[]", b"null", b'{"model": NaN}', b"[" * 100_000, b"1" * 10_000],
)
def test_what_is_no_json_object_is_refused(running: Running, api_key: str, body: bytes) -> None:
    response = send(running, api_key, TEXT, body)
    assert response.status_code == 400
    found = error(response)
    assert found["code"] == "invalid_json"
    assert "codec" not in found["message"]
    assert "sys." not in found["message"]


def test_an_empty_body_is_refused(running: Running, api_key: str) -> None:
    response = send(running, api_key, TEXT, b"")
    assert response.status_code == 400
    assert error(response)["message"] == "The request's body is missing; send a JSON object."


def test_ten_megabytes_are_refused(running: Running, api_key: str) -> None:
    response = send(running, api_key, TEXT, {"model": MODEL, "prompt": "x" * 10_000_000})
    assert response.status_code == 413
    assert error(response)["code"] == "request_too_large"


def test_a_nul_byte_in_a_prompt_is_a_byte_like_any_other_or_refused(
    running: Running, api_key: str
) -> None:
    body = {"model": MODEL, "prompt": "a\0b", "max_tokens": 3, "temperature": 0}
    response = send(running, api_key, TEXT, body)
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert error(response)["param"] == "prompt"


def test_another_content_type_is_refused(running: Running, api_key: str) -> None:
    body = {"model": MODEL, "prompt": "x"}
    headers = {"Content-Type": "text/plain"}
    response = send(running, api_key, TEXT, body, **headers)
    assert response.status_code == 415
    assert error(response)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("key", [None, "-", "llm_x_y", "sk-123", "llm_" + "a" * 5000, "\xe9"])
def test_a_bad_key_is_refused(running: Running, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode("latin1")}
    response = httpx2.get(running.url + "/v1/models", headers=headers)
    assert response.status_code == 401
    assert error(response)["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/", "/v1/nothing", "/v1/models/a/b/c", "/v1/chat"])
def test_unknown_routes_answer_in_the_same_form(running: Running, api_key: str, path: str) -> None:
    response = httpx2.get(
        running.url + path, headers={"Authorization": f"Bearer {api_key}"}, follow_redirects=True
    )
    assert response.status_code == 404
    error(response)


def test_a_wrong_method_is_refused_with_the_right_one(running: Running) -> None:
    response = httpx2.get(running.url + TEXT)
    assert response.status_code == 405
    assert error(response)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    assert httpx2.delete(running.url + "/v1/models").status_code == 405


def test_the_description_is_public(running: Running) -> None:
    described = httpx2.get(running.url + "/v1/openapi.json").json()
    assert "/v1/chat/completions" in described["paths"]


def test_zz_afterwards_everything_still_works_and_no_traceback_was_logged(
    running: Running, api_key: str
) -> None:
    body = {"model": MODEL, "prompt": "still ", "max_tokens": 6, "temperature": 0}
    response = send(running, api_key, TEXT, body)
    assert response.json()["choices"][0]["text"] == "still "
    for name in ("portal", "worker", "tasks"):
        assert "Traceback" not in running.log(name), running.log(name)[-4000:]
