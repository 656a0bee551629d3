"""Bodies of requests. What is not here is refused by name; what is neutral is let through.

Types are strict, as OpenAI's are: a number in quotation marks is a mistake worth hearing about.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from inference_workers.contract import Guide, Sampling
from portal.api.base import Strict, Text, TokenIds, example
from portal.api.structured import ResponseFormat, Structured
from portal.jobs import guides
from portal.jobs.errors import InvalidRequest

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_cache_key": (),
    "reasoning_effort": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that change nothing at these values, and at null, and are unsupported else."""

MAX_PROMPTS = 32
COMPLETION_TOKENS = 16
"""``max_tokens`` of a completion that names none: OpenAI's default."""
CHAT_TOKENS = 256
"""``max_tokens`` of a chat answer that names none."""


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Request(Strict):
    """What both endpoints take."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    n: int | None = Field(default=None, ge=1, le=16)
    max_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    min_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, max_length=1024
    )
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None
    deterministic: bool | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    guided_regex: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            name: value
            for name, value in data.items()
            if not (name in NEUTRAL and (value is None or value in NEUTRAL[name]))
        }

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for name in value or {}:
            if not (name.isascii() and name.isdecimal() and len(name) < 10):
                raise ValueError(f"a key is a token id, and '{name[:40]}' is none")
        return value

    @field_validator("stop", mode="after")
    @classmethod
    def _stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > 16:
            raise ValueError(f"at most 16 stop strings, and there are {len(stops)}")
        for stop in stops:
            if not 0 < len(stop) <= 256 or "\0" in stop:
                raise ValueError("a stop string has 1 to 256 characters, none of them NUL")
        return value

    @field_validator("guided_regex")
    @classmethod
    def _short_enough(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                guides.of_pattern(value)
        except InvalidRequest as error:
            raise ValueError(error.message) from None
        return value

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' needs 'stream': true")
        return self

    @property
    def usage_wanted(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _guide(self, other: Guide | None) -> Guide | None:
        """What the answer must match: a regular expression, or what ``other`` fields ask for."""
        return other if self.guided_regex is None else guides.of_pattern(self.guided_regex)

    def _sampling(self, **extra: Any) -> Sampling:
        """The shared fields as the contract's; what the caller left out keeps its default."""
        names = (
            "n",
            "min_tokens",
            "temperature",
            "top_p",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "ignore_eos",
            "deterministic",
        )
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Sampling(
            **given,
            top_k=max(self.top_k or 0, 0),  # -1 is how other servers write "off"
            logit_bias={int(key): bias for key, bias in (self.logit_bias or {}).items()},
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            **extra,
        )


class TextPart(Strict):
    type: Literal["text"]
    text: Text


class CalledFunction(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Text


class ToolCall(Strict):
    """A call that an earlier answer made."""

    id: Annotated[str, Field(max_length=128)]
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, validate_default=True
    )
    content: Text | list[TextPart] | None = Field(default=None, validate_default=True)
    name: None = None
    # What answers carry, for clients that send them back as they are.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @field_validator("tool_calls")
    @classmethod
    def _assistants_call(
        cls, value: list[ToolCall] | None, info: ValidationInfo
    ) -> list[ToolCall] | None:
        if value and info.data.get("role", "assistant") != "assistant":
            raise ValueError("only an assistant's message has them")
        return value or None

    @field_validator("tool_call_id")
    @classmethod
    def _tools_answer(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (info.data.get("role") == "tool") != (value is not None):
            raise ValueError("a message of the role 'tool' has one, and no other has")
        return value

    @field_validator("content")
    @classmethod
    def _said(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and not info.data.get("tool_calls"):
            raise PydanticCustomError("missing", "Field required")
        return value

    def plain(self) -> dict[str, Any]:
        """As chat templates know it: ``developer`` is the newer word for system."""
        text = (
            "".join(part.text for part in self.content)
            if isinstance(self.content, list)
            else self.content or ""
        )
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": text}
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class ChatRequest(Request, Structured):
    """``POST /v1/chat/completions``."""

    model_config = example(
        messages=[{"role": "user", "content": "Name three rivers."}], max_tokens=48, stream=True
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)]
    max_completion_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        if self.guided_regex is not None and (self.response_format or self.offered()):
            raise ValueError("give 'guided_regex' or 'response_format' and 'tools', not both")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("give 'max_completion_tokens' or the older 'max_tokens', not both")
        return self

    def sampling(self) -> Sampling:
        given = (self.max_completion_tokens, self.max_tokens)
        limit = next((value for value in given if value is not None), CHAT_TOKENS)
        return self._sampling(
            max_tokens=limit,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            guide=self._guide(self.guide()),
        )


class CompletionRequest(Request):
    """``POST /v1/completions``."""

    model_config = example(prompt="English: Good morning.\nFrench:", max_tokens=24, stop=["\n"])

    prompt: Text | TokenIds | list[Text] | list[TokenIds]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _one_guide(self) -> CompletionRequest:
        if self.guided_regex is not None and self.response_format is not None:
            raise ValueError("give 'guided_regex' or 'response_format', not both")
        return self

    @field_validator("prompt")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if not value or (isinstance(value, list) and [] in value):
            raise ValueError("it is empty; give the model something to go on")
        if isinstance(value, list) and not isinstance(value[0], int) and len(value) > MAX_PROMPTS:
            raise ValueError(f"at most {MAX_PROMPTS} prompts in one request")
        return value

    def prompts(self) -> list[str | list[int]]:
        """Each prompt by itself, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[part for part in self.prompt if isinstance(part, int)]]
        return [part for part in self.prompt if not isinstance(part, int)]

    def sampling(self) -> Sampling:
        return self._sampling(
            max_tokens=COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens,
            logprobs=self.logprobs,
            prompt_logprobs=self.logprobs if self.echo else None,
            guide=self._guide(self.response_format.guide() if self.response_format else None),
        )


class EmbeddingRequest(Strict):
    """``POST /v1/embeddings``. Token ids are the model's own, taken as they are."""

    model_config = example(
        model=settings.LLMASOS.embedding_model or "all-minilm-l6-v2",
        input=["The tide is coming in.", "High water is near."],
    )

    model: Annotated[str, Field(min_length=1, max_length=200)]
    input: Text | TokenIds | list[Text] | list[TokenIds]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, le=1_000_000)
    user: Annotated[str, Field(max_length=512)] | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _of_one_kind(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(map(type, value))) > 1:
            raise ValueError("it mixes kinds; give texts, token ids, or lists of token ids")
        return value

    @property
    def alone(self) -> bool:
        """Whether it is one text and no list of texts."""
        return isinstance(self.input, str) or isinstance(next(iter(self.input), None), int)

    def texts(self) -> list[str | list[int]]:
        """Each text by itself."""
        if isinstance(self.input, str):
            return [self.input]
        if self.alone:
            return [[part for part in self.input if isinstance(part, int)]]
        return [part for part in self.input if not isinstance(part, int)]
