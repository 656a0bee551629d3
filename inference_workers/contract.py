"""What the portal and the workers say to each other: jobs, log entries, names of queues and tasks.

Standard library and pydantic only. Every message is frozen. Writers are strict (an unknown field
is our bug); readers use ``read`` and ignore what they don't know, so that old and new processes can
run side by side during an upgrade. Times are UNIX seconds, token counts are integers, logprobs are
natural logarithms.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

TASK_PULL = "inference_workers.pull"
"""The wake-up: claim until nothing is claimable. It carries no job; the fair queue does."""

PORTAL_QUEUE = "portal"
"""The Celery queue of the portal's own background tasks."""

TERMINAL_TYPES = frozenset({"finished", "failed", "cancelled"})


def wakeup_queue(model: str) -> str:
    """The Celery queue on which workers of catalogue model ``model`` listen for wake-ups."""
    return f"inference.{model}"


class Message(BaseModel):
    """Frozen; strict to build, lenient to read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, data: str | bytes) -> Self:
        """Parse JSON written by this or a newer version; unknown fields are dropped."""
        return cls.model_validate_json(data, extra="ignore")

    def write(self) -> str:
        """Compact JSON; fields at their default are left out."""
        return self.model_dump_json(exclude_defaults=True)


class Guide(Message):
    """What the answer's text must match, from its first token to its end.

    ``text`` is a JSON schema, a regular expression (Rust's syntax) or a Lark grammar.
    """

    kind: Literal["json_schema", "regex", "lark"]
    text: str = Field(max_length=262_144)


class Sampling(Message):
    """How tokens are chosen and when to stop. Validated again by whoever accepts it from outside.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``min_p`` 0 are off. ``repetition_penalty`` 1 is
    off and follows CTRL (arXiv 1909.05858): it sees prompt and output; presence and frequency
    penalties follow OpenAI's definition and see the output alone. ``logprobs`` is the number of
    alternatives for each generated token (``None``: no logprobs, 0: the token's own only);
    ``prompt_logprobs`` the same for the prompt's tokens. ``max_tokens`` 0 scores the prompt and
    generates nothing.
    """

    max_tokens: int = Field(default=256, ge=0)
    min_tokens: int = Field(default=0, ge=0)
    n: int = Field(default=1, ge=1, le=16)
    temperature: float = Field(default=1.0, ge=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[int, float] = Field(default_factory=dict, max_length=1024)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    stop_token_ids: tuple[int, ...] = Field(default=(), max_length=64)
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=20)
    deterministic: bool = False
    guide: Guide | None = None


class Job(Message):
    """One request for one model, complete: a worker needs nothing else to run or to resume it.

    ``model`` is the catalogue id, ``model_digest`` names the exact weights and ``format`` how they
    are stored; ``prefixes`` are ``(salt, length)`` pairs that partition ``input_ids`` from its
    start for the prefix cache; the first ``pinned`` tokens stay there when others must go.
    ``deadline`` is a UNIX time or ``None``. ``epoch`` counts claims,
    from 1. With ``lengths`` it is a job for an encoder: ``input_ids`` holds that many texts, one
    after another, each of so many tokens.
    """

    id: str
    team: str
    source: str
    model: str
    model_digest: str
    format: str = "bf16"
    adapter: str | None = None
    input_ids: tuple[int, ...]
    lengths: tuple[int, ...] = ()
    prefixes: tuple[tuple[str, int], ...] = ()
    pinned: int = 0
    sampling: Sampling
    seed: int = Field(ge=0, lt=2**63)
    deadline: float | None = None
    epoch: int = 0


class TokenLogprob(Message):
    """One token's log-probability and its most likely alternatives as ``(token_id, logprob)``."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Usage(Message):
    """What a job is billed: the prompt once, however many epochs it took."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)


class Started(Message):
    """A worker has begun the job: entry 1, and never again, so that numbers survive takeovers."""

    type: Literal["started"] = "started"
    worker: str


class Delta(Message):
    """Tokens of one choice made in one step, and the text that became certain with them.

    ``first`` is the index in the choice of ``token_ids[0]``. ``text`` may be empty while bytes of a
    character or a possible stop sequence are held back. ``finish`` ends the choice.
    ``prompt_logprobs`` comes once, on the job's first delta (``token_ids`` may be empty there); its
    entry ``i`` scores prompt token ``i + 1``, because nothing precedes the first one.
    """

    type: Literal["delta"] = "delta"
    choice: int = 0
    first: int
    token_ids: tuple[int, ...]
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish: Literal["stop", "length"] | None = None


class Embedded(Message):
    """What one step of an encoder made of a job: ``vectors[i]`` is that of text ``texts[i]``.

    Texts of similar length are computed together, so they come in any order, each once. A vector is
    base64 of little-endian float32, its length 1. Processes from before there were encoders can't
    read this entry: they leave such a job's log to newer ones.
    """

    type: Literal["embedded"] = "embedded"
    texts: tuple[int, ...]
    vectors: tuple[str, ...]


Made = Delta | Embedded
"""What is made of a job step by step, and what a takeover goes on after."""


class Finished(Message):
    """All choices ended. ``reason`` is ``length`` if any choice was cut off, else ``stop``."""

    type: Literal["finished"] = "finished"
    reason: Literal["stop", "length"]
    usage: Usage


class Failed(Message):
    """It ended without its answer. ``code`` is for programs, ``message`` says what to do next."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    usage: Usage = Usage()


class Cancelled(Message):
    """Somebody stopped it. What was generated is kept and billed."""

    type: Literal["cancelled"] = "cancelled"
    usage: Usage = Usage()


AnyEvent = Started | Delta | Embedded | Finished | Failed | Cancelled
Event = Annotated[AnyEvent, Field(discriminator="type")]
_events: TypeAdapter[AnyEvent] = TypeAdapter(Event)


class Entry:
    """One line of a job's log. ``seq`` counts from 1 without gaps; ``epoch`` is its writer's.

    ``at`` is when it was logged, in UNIX seconds by Redis' clock: a job's figures come from it.
    Made of its event or of the event's JSON; the other is made when it is first asked for, and
    kept, because most entries only pass through. Never changed.

    Raises ``ValueError`` when ``text`` turns out not to be an event.
    """

    __slots__ = ("_event", "_text", "at", "epoch", "seq")

    def __init__(
        self,
        *,
        seq: int,
        epoch: int,
        at: float = 0.0,
        event: AnyEvent | None = None,
        text: str | None = None,
    ) -> None:
        if (event is None) is (text is None):
            raise TypeError("an entry is made of its event or of the event's text")
        self.seq, self.epoch, self.at = seq, epoch, at
        self._event, self._text = event, text

    @property
    def event(self) -> AnyEvent:
        if self._event is None:
            self._event = read_event(self._text or "")
        return self._event

    @property
    def text(self) -> str:
        """The event's JSON, as it was written."""
        if self._text is None:
            self._text = write_event(self.event)
        return self._text

    @property
    def terminal(self) -> bool:
        if self._event is None and self.text.startswith(_DELTA):
            return False
        return self.event.type in TERMINAL_TYPES

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.seq, self.epoch, self.at, self.event) == (
            other.seq,
            other.epoch,
            other.at,
            other.event,
        )

    def __hash__(self) -> int:
        return hash((self.seq, self.epoch))

    def __repr__(self) -> str:
        return f"Entry(seq={self.seq}, epoch={self.epoch}, at={self.at}, event={self.event!r})"


_DELTA = '{"type":"delta"'
"""How nearly every event's JSON begins; what begins otherwise is parsed to be known."""


def write_event(event: AnyEvent) -> str:
    """Compact JSON with its ``type``; other fields at their default are left out."""
    body = event.model_dump(mode="json", exclude_defaults=True)
    return _dump({"type": event.type, **body})


def read_event(data: str | bytes) -> AnyEvent:
    """Parse one event; fields that this version doesn't know are dropped."""
    return _events.validate_json(data, extra="ignore")


def _dump(value: object) -> str:
    return _json.dump_json(value).decode()


_json: TypeAdapter[object] = TypeAdapter(object)
