"""``LLMa`` on a portal, over its OpenAI-compatible ``/v1``.

Nothing that makes tokens is ever sent twice: a request that fails is the caller's to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Unpack

import httpx2

from llmasos.errors import (
    GenerationFailed,
    InvalidRequest,
    LLMasOSError,
    ModelNotFound,
    ModelUnavailable,
    RateLimited,
    Timeout,
    Unauthorized,
    Unreachable,
)
from llmasos.model import LLMa, Message, Options, Settings
from llmasos.stream import End, Stream, Usage
from llmasos.text.vectors import unpack

CONNECT_S = 10.0
MAX_ERROR_BYTES = 64 * 1024
TEXTS_A_REQUEST = 512
"""Embeddings of more are asked for in several requests: a portal takes so many tokens at once."""
_STATUS: dict[int, type[LLMasOSError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: ModelNotFound,
    429: RateLimited,
    503: ModelUnavailable,
}


class RemoteLLMa(LLMa):
    """A portal's model. Safe for any number of threads."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 600.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._http = Http(url, api_key=api_key, timeout=timeout, transport=transport)
        try:
            chosen = self._choose(model)
        except BaseException:
            self._http.close()
            raise
        self.model = str(chosen["id"])
        kinds: dict[Any, Literal["instruct", "embedding"]] = {
            "instruct": "instruct",
            "embedding": "embedding",
        }
        self.kind: Literal["base", "instruct", "embedding"] = kinds.get(chosen.get("kind"), "base")

    def _choose(self, wanted: str | None) -> dict[str, Any]:
        offered = self._http.models()
        for model in offered:
            if wanted == model.get("id") or (wanted is None and model.get("kind") != "embedding"):
                return model
        if wanted is None:
            raise ModelUnavailable("The portal offers no model yet. Ask its operator to add one.")
        names = ", ".join(str(model.get("id")) for model in offered) or "none"
        raise ModelNotFound(f"The portal has no model {wanted!r}. It offers: {names}.")

    def stream(self, prompt: str, **options: Unpack[Options]) -> Stream:
        body = self._body(options) | {"prompt": prompt}
        return Stream(self._pieces("completions", body, _completion_text))

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Stream:
        body = self._body(options) | {"messages": [dict(message) for message in messages]}
        return Stream(self._pieces("chat/completions", body, _chat_text))

    def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        texts = [prompt + continuation for continuation in continuations]
        body = {"model": self.model, "prompt": texts, "echo": True, "max_tokens": 0, "logprobs": 0}
        answer = self._http.post("completions", body)
        try:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            scored = [choice["logprobs"] for choice in choices]
            return [
                sum(
                    logprob
                    for logprob, offset in zip(
                        each["token_logprobs"], each["text_offset"], strict=True
                    )
                    if logprob is not None and offset >= len(prompt)
                )
                for each in scored
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise _odd_answer() from error

    def _embed(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = []
        for start in range(0, len(texts), TEXTS_A_REQUEST):
            part = texts[start : start + TEXTS_A_REQUEST]
            body = {"model": self.model, "input": part, "encoding_format": "base64"}
            answer = self._http.post("embeddings", body)
            try:
                vectors = sorted(answer["data"], key=lambda item: int(item["index"]))
                found += [unpack(item["embedding"]) for item in vectors]
            except (KeyError, TypeError, ValueError) as error:
                raise _odd_answer() from error
        if len(found) != len(texts):
            raise _odd_answer()
        return found

    def close(self) -> None:
        self._http.close()

    def _body(self, options: Options) -> dict[str, Any]:
        settings = Settings.of(options)
        plain = Settings(stop=settings.stop, seed=settings.seed)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
        }
        if settings.schema is not None:
            named = {"name": "answer", "schema": json.loads(settings.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if settings.regex is not None:
            body["guided_regex"] = settings.regex
        for name in Settings.__slots__:
            if name in ("schema", "regex"):
                continue
            value = getattr(settings, name)
            if name not in body and value != getattr(plain, name):
                body[name] = value
        if settings.stop:
            body["stop"] = list(settings.stop)
        if settings.seed is not None:
            body["seed"] = settings.seed
        return body

    def _pieces(self, path: str, body: dict[str, Any], text_of: Any) -> Generator[str, None, End]:
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
        reason: str | None = None
        usage: Usage | None = None
        for chunk in self._http.events(path, body):
            if isinstance(counted := chunk.get("usage"), dict):
                usage = Usage(
                    int(counted.get("prompt_tokens", 0)), int(counted.get("completion_tokens", 0))
                )
            for choice in chunk.get("choices") or ():
                reason = choice.get("finish_reason") or reason
                if text := text_of(choice):
                    yield text
        return End(reason, usage)


class Http:
    """The portal's routes, its errors as ours."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        timeout: float = 600.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        base = url.rstrip("/").removesuffix("/v1")
        if not base.startswith(("http://", "https://")):
            raise InvalidRequest(f"{url!r} is not an address. Write http://host:port.")
        headers = {"User-Agent": "llmasos-python"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.base = base
        try:
            self._client = httpx2.Client(
                base_url=f"{base}/v1/",
                headers=headers,
                timeout=httpx2.Timeout(timeout, connect=CONNECT_S),
                transport=transport,
            )
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            raise InvalidRequest(
                "The address or the key has a character that it can't have. Correct it."
            ) from error

    def close(self) -> None:
        self._client.close()

    def models(self) -> list[dict[str, Any]]:
        """What the portal offers, as it describes it."""
        answer = self._json("GET", "models")
        found = answer.get("data")
        if not isinstance(found, list) or not all(isinstance(model, dict) for model in found):
            raise _odd_answer()
        return found

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request, one JSON object."""
        return self._json("POST", path, body)

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON objects of a server-sent stream, to its ``[DONE]``."""
        with (
            self._errors(),
            self._client.stream("POST", path, content=_encoded(body), headers=_JSON) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise _failure(response)
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    return
                chunk = _object(data)
                if "error" in chunk:
                    raise _stream_failure(chunk["error"])
                yield chunk
        raise GenerationFailed(
            "The connection ended before the answer did. Check the portal and ask again.",
            code="cut_off",
        )

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._errors():
            content = None if body is None else _encoded(body)
            response = self._client.request(
                method, path, content=content, headers=None if body is None else _JSON
            )
        if response.status_code != 200:
            raise _failure(response)
        return _object(response.text)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException as error:
            raise Timeout(
                f"{self.base} did not answer in time. Try again, or give it a longer timeout."
            ) from error
        except httpx2.HTTPError as error:
            raise Unreachable(
                f"{self.base} can't be reached ({type(error).__name__}). Check the address and "
                "that the portal runs."
            ) from error


_JSON = {"Content-Type": "application/json"}


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (UnicodeEncodeError, ValueError, TypeError) as error:
        raise InvalidRequest(
            "The request can't be sent: a text has half a surrogate pair, or a number is none. "
            "Correct it."
        ) from error


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _odd_answer() from error
    if not isinstance(value, dict):
        raise _odd_answer()
    return value


def _odd_answer() -> LLMasOSError:
    return Unreachable(
        "What answers there is not an LLMasOS portal. Check the address.", code="odd_answer"
    )


def _failure(response: httpx2.Response) -> LLMasOSError:
    """The portal's refusal as one of our errors, in its words where it has some."""
    status = response.status_code
    try:
        error = json.loads(response.content[:MAX_ERROR_BYTES]).get("error")
    except (ValueError, AttributeError):
        error = None
    described = error if isinstance(error, dict) else {}
    message = described.get("message")
    kind = _STATUS.get(status, InvalidRequest if 400 <= status < 500 else ModelUnavailable)
    if not isinstance(message, str):
        message = f"The portal answered with status {status}. Check the address, or try later."
        kind = Unreachable if status == 404 else kind
    code = described.get("code")
    return kind(
        message,
        code=code if isinstance(code, str) else None,
        status=status,
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


def _stream_failure(error: Any) -> LLMasOSError:
    described = error if isinstance(error, dict) else {}
    message, code = described.get("message"), described.get("code")
    return GenerationFailed(
        message if isinstance(message, str) else "The answer broke off. Ask again.",
        code=code if isinstance(code, str) else None,
    )


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else float(header)
    except ValueError:
        return None


def _completion_text(choice: dict[str, Any]) -> str:
    return str(choice.get("text") or "")


def _chat_text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    return str(delta.get("content") or "") if isinstance(delta, dict) else ""
