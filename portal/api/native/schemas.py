"""Bodies and answers of ``/api/v1``. Times are ISO 8601 in UTC, amounts are tokens."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inference_workers.contract import Sampling
from portal.api.base import Strict, Text, TokenIds, example


class Message(Strict):
    role: Literal["system", "user", "assistant"]
    content: Text


class NewJob(Strict):
    """Exactly one of ``prompt``, ``messages`` and ``tokens`` says what to go on from."""

    model_config = example(prompt="Once upon a time", sampling={"max_tokens": 48})

    model: Annotated[str, Field(min_length=1, max_length=200)]
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=2048)] | None = None
    tokens: TokenIds | None = None
    sampling: Sampling = Sampling()
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Problem(BaseModel):
    code: str
    message: str


class Used(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Times(BaseModel):
    queued: datetime
    claimed: datetime | None
    first_token: datetime | None
    last_token: datetime | None
    recorded: datetime | None


class JobSummary(BaseModel):
    """``state`` is ``open`` until the job's end is recorded."""

    id: str
    model: str
    source: str
    state: Literal["open", "finished", "failed", "cancelled"]
    reason: str | None = Field(description="Why it ended: stop or length.")
    error: Problem | None
    usage: Used
    times: Times


class JobDetail(JobSummary):
    """``outputs`` is what each choice has said by now, up to the log's entry ``last_seq``."""

    seed: int
    sampling: dict[str, Any]
    outputs: list[str]
    last_seq: int


class JobList(BaseModel):
    """Newest first. ``next`` is the ``before`` of the next page; null on the last one."""

    jobs: list[JobSummary]
    next: str | None


class Cancelling(BaseModel):
    """``removed``: it was queued and never ran. ``flagged``: it stops at its next step.
    ``unknown``: it had ended before."""

    id: str
    result: Literal["removed", "flagged", "unknown"]


class ModelDetail(BaseModel):
    id: str
    name: str
    kind: Literal["base", "instruct", "embedding"]
    family: str
    parameters: int
    context_length: int
    vocab_size: int
    dimensions: int = Field(description="Numbers in a vector, where it makes embeddings; else 0.")
    format: str
    licence: str
    licence_url: str


class ModelList(BaseModel):
    models: list[ModelDetail]


class Tokenize(Strict):
    model_config = example(text="Once upon a time")

    model: Annotated[str, Field(min_length=1, max_length=200)]
    text: Text


class Tokens(BaseModel):
    """``tokens`` begin as a prompt's do, with the token that opens a text where the model has
    one; ``pieces`` are their spellings in the vocabulary."""

    count: int
    tokens: list[int]
    pieces: list[str]


class Detokenize(Strict):
    model_config = example(tokens=[79, 110, 99, 101])

    model: Annotated[str, Field(min_length=1, max_length=200)]
    tokens: TokenIds


class Detokenized(BaseModel):
    text: str


class AppInput(BaseModel):
    name: str
    kind: str
    label: str
    hint: str
    max_length: int
    choices: list[str]


class AppDetail(BaseModel):
    slug: str
    name: str
    description: str
    category: str
    author: str
    version: int
    model: str
    result: str = Field(description="text, or scores of labels")
    inputs: list[AppInput]


class AppList(BaseModel):
    apps: list[AppDetail]


class NewRun(Strict):
    model_config = ConfigDict(json_schema_extra={"example": {"inputs": {"text": "Good morning."}}})

    inputs: dict[str, Any]


class Scored(BaseModel):
    label: str
    name: str
    probability: float


class RunDetail(BaseModel):
    """``text`` grows while the run is open; ``scores`` are there once all labels are scored."""

    id: str
    app: str
    version: int
    kind: Literal["text", "scores"]
    state: Literal["open", "finished", "failed", "cancelled"]
    text: str
    scores: list[Scored]
    error: str | None
    jobs: list[str]


class Member(BaseModel):
    name: str
    email: str
    role: str


class TeamDetail(BaseModel):
    id: uuid.UUID
    name: str
    kind: str
    role: str | None = Field(description="The role of the key's maker.")
    members: list[Member]


class TeamList(BaseModel):
    teams: list[TeamDetail]


class KeyDetail(BaseModel):
    id: uuid.UUID
    name: str
    key: str = Field(description="How it begins and how it ends.")
    created_by: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    scopes: list[str]
    allowed_models: list[str] = Field(description="None listed: all.")
    requests_per_minute: int | None
    tokens_per_minute: int | None
    monthly_tokens: int | None
    expires_at: datetime | None


class KeyList(BaseModel):
    keys: list[KeyDetail]


class NewKey(Strict):
    model_config = ConfigDict(json_schema_extra={"example": {"name": "laptop"}})

    name: Annotated[str, Field(min_length=1, max_length=120)]
    scopes: Annotated[list[str], Field(max_length=16)] | None = Field(
        default=None,
        description="Of models, chat, apps, training and admin; left out: all but admin.",
    )
    allowed_models: Annotated[list[str], Field(max_length=100)] = []
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    monthly_tokens: int | None = None
    expires_at: Annotated[datetime, Field(strict=False)] | None = None


class MadeKey(KeyDetail):
    secret: str = Field(description="The whole key. It is shown this once.")


class UsageOfHour(BaseModel):
    hour: datetime
    model: str
    source: str
    jobs: int
    prompt_tokens: int
    completion_tokens: int


class Month(BaseModel):
    """The calendar month so far, UTC. ``limit`` null: none."""

    limit: int | None
    spent: int
    reserved: int
    left: int | None


class UsageReport(BaseModel):
    month: Month
    hours: list[UsageOfHour]


class Ticket(BaseModel):
    """Opens one WebSocket, once, within ``expires_in`` seconds."""

    ticket: str
    expires_in: int
    url: str
