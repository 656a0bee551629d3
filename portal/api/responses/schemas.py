"""The body of ``POST /v1/responses``. What is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from inference_workers.contract import Sampling
from portal.api.base import Strict, Text, example
from portal.api.schemas import CHAT_TOKENS
from portal.api.structured import (
    Description,
    Function,
    FunctionName,
    JsonSchema,
    Name,
    NamedTool,
    ResponseFormat,
    Schema,
    Structured,
    Tool,
)

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "context_management": (),
    "conversation": (),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "reasoning": ({},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "truncation": ("disabled",),
}
"""Fields that change nothing at these values, and at null, and are unsupported else."""


class ContentPart(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class _Item(Strict):
    id: Annotated[str, Field(max_length=128)] | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class MessageItem(_Item):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | list[ContentPart]


class CallItem(_Item):
    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1, max_length=128)]
    name: Name
    arguments: Text


class ResultItem(_Item):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1, max_length=128)]
    output: Text | list[ContentPart]


def _kind(item: Any) -> Any:
    if isinstance(item, dict):
        return item.get("type", "message")
    return getattr(item, "type", None)


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]


class TextFormat(Strict):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Name | None = None
    description: Description | None = None
    schema_: Schema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(Strict):
    format: TextFormat | None = None
    verbosity: None = None


class FunctionTool(Strict):
    type: Literal["function"]
    name: Name
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ChosenTool(Strict):
    type: Literal["function"]
    name: Name


class StreamOptions(Strict):
    include_obfuscation: Literal[False] | None = None


class ResponseRequest(Strict):
    """``POST /v1/responses``."""

    model_config = example(input="Name three rivers.", max_output_tokens=48)

    model: Annotated[str, Field(min_length=1, max_length=200)]
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=2048)]
    instructions: Text | None = None
    previous_response_id: Annotated[str, Field(max_length=64)] | None = None
    store: bool | None = None
    background: bool | None = Field(default=None, validate_default=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    include: (
        Annotated[list[Literal["message.output_text.logprobs"]], Field(max_length=8)] | None
    ) = None
    text: TextConfig | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

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

    @field_validator("background")
    @classmethod
    def _kept(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("store") is False:
            raise ValueError("it needs 'store', or nobody could read the answer")
        return value

    @field_validator("input")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if not value:
            raise ValueError("it is empty; write something")
        return value

    def structured(self) -> Structured:
        """The same wishes as chat has them. Raises pydantic's ``ValidationError``."""
        chosen = self.tool_choice
        choice = (
            NamedTool(type="function", function=FunctionName(name=chosen.name))
            if isinstance(chosen, ChosenTool)
            else chosen
        )
        tools = [
            Tool(type="function", function=Function(**tool.model_dump(exclude={"type"})))
            for tool in self.tools or ()
        ]
        return Structured(tools=tools or None, tool_choice=choice, response_format=self._format())

    def _format(self) -> ResponseFormat | None:
        given = self.text.format if self.text else None
        if given is None:
            return None
        if given.type != "json_schema":
            return ResponseFormat(type=given.type)
        schema = JsonSchema.model_validate(
            given.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
        )
        return ResponseFormat(type=given.type, json_schema=schema)

    @property
    def scored(self) -> bool:
        return bool(self.include)

    def sampling(self, structured: Structured) -> Sampling:
        names = ("temperature", "top_p", "min_p", "repetition_penalty")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Sampling(
            **given,
            top_k=max(self.top_k or 0, 0),
            max_tokens=self.max_output_tokens or CHAT_TOKENS,
            logprobs=(self.top_logprobs or 0) if self.scored else None,
            guide=structured.guide(),
        )

    def items(self) -> list[dict[str, Any]]:
        """The input, each item whole."""
        given = self.input
        if isinstance(given, str):
            part = ContentPart(type="input_text", text=given)
            given = [MessageItem(role="user", content=[part])]
        return [item.model_dump(exclude_none=True) for item in given]

    def said_again(self) -> dict[str, Any]:
        """The fields that the answer repeats, and the names of the tools that it may call."""
        choice = self.tool_choice or "auto"
        structured = self.structured()
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_logprobs": self.top_logprobs or 0,
            "text": {"format": self._said_format()},
            "tools": [tool.model_dump() for tool in self.tools or ()],
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "metadata": self.metadata or {},
            "user": self.user,
            "store": self.store is not False,
            "offered": [function.name for function in structured.offered()],
            "scored": self.scored,
        }

    def _said_format(self) -> dict[str, Any]:
        given = self.text.format if self.text else None
        return (
            {"type": "text"}
            if given is None
            else given.model_dump(by_alias=True, exclude_none=True)
        )
