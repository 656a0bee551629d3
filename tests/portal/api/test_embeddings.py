"""``/v1/embeddings`` through the running system, with OpenAI's own package and by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI, PermissionDeniedError

from llmasos import LLMa
from llmasos.errors import InvalidRequest
from tests.running import MODEL, Running
from tests.small_encoder import CLS, LONGEST, SEP, SIZE, VOCABULARY

TEXTS = ["the tide is in", "high water", "a", "xyz 123"]


@pytest.fixture
def post(running: Running, api_key: str, encoder: str) -> Any:
    def post(headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        body = {"model": encoder, "input": TEXTS} | fields
        sent = {"Authorization": f"Bearer {api_key}"} | (headers or {})
        return httpx2.post(f"{running.url}/v1/embeddings", json=body, headers=sent, timeout=60)

    return post


def near(one: Sequence[float], other: Sequence[float]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-5


def test_the_openai_package_gets_a_vector_of_each_text(client: OpenAI, encoder: str) -> None:
    answer = client.embeddings.create(model=encoder, input=TEXTS)  # base64 on the wire
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert all(len(item.embedding) == SIZE for item in answer.data)
    assert all(math.isclose(math.hypot(*i.embedding), 1, abs_tol=1e-5) for i in answer.data)
    tokens = sum(len(text.replace(" ", "")) + 2 for text in TEXTS)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
    plain = client.embeddings.create(model=encoder, input=TEXTS, encoding_format="float")
    for one, other in zip(answer.data, plain.data, strict=True):
        assert near(one.embedding, other.embedding)


async def test_it_is_the_same_asynchronously(aclient: AsyncOpenAI, encoder: str) -> None:
    answer = await aclient.embeddings.create(model=encoder, input="high water")
    same = await aclient.embeddings.create(model=encoder, input=["a", "high water"])
    assert near(answer.data[0].embedding, same.data[1].embedding)


def test_token_ids_are_taken_as_they_are(client: OpenAI, encoder: str) -> None:
    ids = [CLS, 5, SEP]  # "a" as the tokenizer frames it
    alone = client.embeddings.create(model=encoder, input=ids).data
    both = client.embeddings.create(model=encoder, input=[ids, [5]]).data
    text = client.embeddings.create(model=encoder, input="a").data
    assert len(alone) == 1
    assert near(alone[0].embedding, text[0].embedding)
    assert near(both[0].embedding, text[0].embedding)
    assert not near(both[1].embedding, text[0].embedding)


def test_its_form_is_openais(post: Any, encoder: str) -> None:
    answer = post(user="somebody", dimensions=SIZE, encoding_format=None)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", encoder)
    assert body["data"][1]["object"] == "embedding"
    assert isinstance(body["data"][1]["embedding"][0], float)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-ratelimit-remaining-requests"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"input": []}, "input", "empty"),
        ({"input": ""}, "input", "empty"),
        ({"input": ["a", ""]}, "input[1]", "empty"),
        ({"input": [[5], []]}, "input[1]", "empty"),
        ({"input": ["a", "b", "c", "xy " * 150]}, "input[3]", f"302 tokens.* at most {LONGEST}"),
        ({"input": "a " * 200}, "input", f"202 tokens.* at most {LONGEST}"),
        ({"input": ["a " * 100_000]}, "input[0]", f"at least 100,000 tokens.* {LONGEST}"),
        ({"input": [5] * 65}, "input", f"65 tokens.* at most {LONGEST}"),
        ({"input": [[5, VOCABULARY]]}, "input[0]", "no token"),
        ({"input": [[5, -1]]}, "input[0][1]", "greater"),
        ({"input": ["a"] * 2049}, "input", "2,049 texts; at most 2,048"),
        ({"input": ["a\0b"]}, "input[0]", "NUL"),
        ({"input": ["a", 5]}, "input", "mixes kinds"),
        ({"input": None}, "input", "refused"),
        ({"dimensions": 8}, "dimensions", f"{SIZE} numbers, and none of 8"),
        ({"dimensions": 0}, "dimensions", "greater"),
        ({"encoding_format": "hex"}, "encoding_format", "float"),
        ({"stream": True}, "stream", "leave it out"),
        ({"model": MODEL}, "model", "makes no embeddings. Models that do: all-minilm-l6-v2"),
    ],
)
def test_what_it_cant_do_is_refused_by_name(
    post: Any, fields: dict[str, Any], param: str, said: str
) -> None:
    answer = post(**fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert re.search(said, error["message"]), error["message"]


def test_as_many_texts_as_a_request_may_have_come_back_in_order(post: Any) -> None:
    answer = post(input=["high" if n % 3 else "water" for n in range(2048)])
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(2048))
    assert near(data[0]["embedding"], data[3]["embedding"])
    assert near(data[1]["embedding"], data[2]["embedding"])
    assert not near(data[0]["embedding"], data[1]["embedding"])


def test_an_encoder_cant_chat_and_says_what_can(client: OpenAI, encoder: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.completions.create(model=encoder, prompt="x")
    assert (caught.value.code, caught.value.param) == ("model_not_supported", "model")
    assert "/v1/embeddings" in caught.value.message
    with pytest.raises(BadRequestError, match="/v1/embeddings"):
        client.chat.completions.create(model=encoder, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(NotFoundError):
        client.embeddings.create(model="no-such-model", input="x")


def test_the_same_idempotency_key_makes_one_job(
    running: Running, post: Any, client: OpenAI
) -> None:
    headers = {"Idempotency-Key": "embed-once"}
    first, second = (post(headers=headers, encoding_format="base64") for _ in range(2))
    assert first.json() == second.json()
    count = "from portal.jobs.models import Job; print(Job.objects.filter({}).count())"
    assert running.python(count.format("idempotency_key='embed-once'")) == "1"
    assert post(headers=headers, input=["another"]).status_code == 409


def test_it_is_listed_as_what_it_is(running: Running, client: OpenAI, encoder: str) -> None:
    found = client.models.retrieve(encoder).model_dump()
    assert (found["kind"], found["dimensions"]) == ("embedding", SIZE)
    key = running.make_key("lister@example.org")
    native = httpx2.get(
        f"{running.url}/api/v1/models/{encoder}", headers={"Authorization": f"Bearer {key}"}
    ).json()
    assert (native["kind"], native["dimensions"], native["context_length"]) == (
        "embedding", SIZE, LONGEST,
    )  # fmt: skip


def test_the_sdk_embeds_over_the_network(running: Running, api_key: str, encoder: str) -> None:
    with LLMa.connect(running.url, api_key=api_key, model=encoder) as model:
        found = model.embed([*TEXTS, *TEXTS])
        assert len(found) == 8
        assert near(found[1], found[5])
        assert model.embed([]) == []
        with pytest.raises(InvalidRequest, match="embed"):
            model.embed("one text")
        with pytest.raises(InvalidRequest, match=r"input\[1\] has 302 tokens"):
            model.embed(["a", "xy " * 150])
        with pytest.raises(InvalidRequest, match="/v1/embeddings"):
            model.generate("x")
    with LLMa.connect(running.url, api_key=api_key) as default:
        assert default.model == MODEL, "an encoder is nobody's default"
        with pytest.raises(InvalidRequest, match="makes no embeddings"):
            default.embed(["x"])


def test_it_needs_the_scope_to_chat(running: Running, encoder: str) -> None:
    key = running.make_key("narrow@example.org")
    running.python(
        "from portal.teams.models import ApiKey;"
        "ApiKey.objects.filter(team__memberships__user__email='narrow@example.org')"
        ".update(scopes=['models'])"
    )
    client = OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
    with pytest.raises(PermissionDeniedError):
        client.embeddings.create(model=encoder, input="x")
