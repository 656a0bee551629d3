"""Bodies of requests. What is not here is refused by name; what is neutral is let through.

Types are strict, as OpenAI's are: a number in quotation marks is a mistake worth hearing about.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from inference_workers.contract import Guide, Sampling
from portal.jobs import guides
from portal.jobs.errors import InvalidRequest

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_json": (),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "prompt_cache_key": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that change nothing at these values, and at null, and are unsupported else."""

MAX_PROMPTS = 32
COMPLETION_TOKENS = 16
"""``max_tokens`` of a completion that names none: OpenAI's default."""
CHAT_TOKENS = 256
"""``max_tokens`` of a chat answer that names none."""

Text = Annotated[str, Field(max_length=4_000_000)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool = False


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
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    response_format: dict[str, Any] | None = None
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

    @field_validator("response_format", "guided_regex")
    @classmethod
    def _guides(cls, value: Any, info: ValidationInfo) -> Any:
        read = guides.of_pattern if info.field_name == "guided_regex" else guides.of_response_format
        try:
            guide = None if value is None else read(value)
        except InvalidRequest as error:
            raise ValueError(error.message) from None
        if guide is not None and info.data.get("response_format") and guide.kind == "regex":
            raise ValueError("give 'guided_regex' or 'response_format', not both")
        return value

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' needs 'stream': true")
        return self

    @property
    def usage_wanted(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _guide(self) -> Guide | None:
        if self.guided_regex is not None:
            return guides.of_pattern(self.guided_regex)
        return guides.of_response_format(self.response_format) if self.response_format else None

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
        )
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Sampling(
            **given,
            top_k=max(self.top_k or 0, 0),  # -1 is how other servers write "off"
            logit_bias={int(key): bias for key, bias in (self.logit_bias or {}).items()},
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            guide=self._guide(),
            **extra,
        )


class TextPart(Strict):
    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: None = None

    def plain(self) -> dict[str, str]:
        """Role and text as chat templates know them: ``developer`` is the newer word for system."""
        text = (
            self.content
            if isinstance(self.content, str)
            else "".join(part.text for part in self.content)
        )
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Request):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)]
    max_completion_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("give 'max_completion_tokens' or the older 'max_tokens', not both")
        return self

    def sampling(self) -> Sampling:
        given = (self.max_completion_tokens, self.max_tokens)
        limit = next((value for value in given if value is not None), CHAT_TOKENS)
        return self._sampling(
            max_tokens=limit, logprobs=(self.top_logprobs or 0) if self.logprobs else None
        )


class CompletionRequest(Request):
    """``POST /v1/completions``."""

    prompt: Text | TokenIds | list[Text] | list[TokenIds]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None

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
        )
