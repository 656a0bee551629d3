"""What an answer must match: how callers say it, and what is refused before there is a job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inference_workers.contract import Guide, Sampling
from portal.jobs import guides
from portal.jobs.checks import read_sampling
from portal.jobs.errors import InvalidRequest

DEEP = '{"items":' * 50_000 + "{}" + "}" * 50_000


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "not JSON"),
        ("[]", "an object"),
        ("", "not JSON"),
        (DEEP[:99_000], "nested too deeply|not JSON"),
        ({"enum": ["x" * 200_000]}, "100,00[0-9]|at most 100,000 are taken"),
    ],
)
def test_a_schema_that_no_worker_would_take_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        guides.of_schema(schema, "schema")
    assert caught.value.field == "schema"


def test_a_response_format_becomes_a_guide() -> None:
    schema = {"type": "object", "properties": {"名": {"type": "string"}}}
    guide = guides.of_response_format({"type": "json_schema", "json_schema": {"schema": schema}})
    assert guide == Guide(kind="json_schema", text=guide.text if guide else "")
    assert guide is not None
    assert json.loads(guide.text) == schema
    assert guides.of_response_format({"type": "text"}) is None


@pytest.mark.parametrize(
    "value", [{}, [], "json", {"type": "xml"}, {"type": "json_schema", "json_schema": {"name": 1}}]
)
def test_a_response_format_that_is_none_names_the_field(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="response_format") as caught:
        guides.of_response_format(value)
    assert caught.value.field is not None


def test_every_way_to_a_job_checks_its_guide() -> None:
    fine = Guide(kind="json_schema", text='{"type":"object"}')
    assert read_sampling(Sampling(guide=fine), vocab_size=9).guide == fine
    for kind, text, words in [
        ("json_schema", "{", "not JSON"),
        ("regex", "a" * 20_000, "10,000"),
        ("regex", "", "empty"),
        ("regex", "a\0b", "NUL"),
        ("lark", "x" * 150_000, "100,000"),
        ("yaml", "x", "guide"),
    ]:
        with pytest.raises(InvalidRequest, match=words) as caught:
            read_sampling({"guide": {"kind": kind, "text": text}}, vocab_size=9)
        assert caught.value.field == "guide"
