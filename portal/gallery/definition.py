"""What an app is made of: typed inputs, examples, a prompt builder and how to sample.

A definition is data. It names its prompt builder, a task of ``llmasos.tasks``, and carries no code.
"""

from __future__ import annotations

from typing import Any, Literal

from django.utils.translation import gettext as _
from pydantic import BaseModel, ConfigDict, Field

from inference_workers.contract import Sampling


class InvalidInput(Exception):
    """An input is missing or wrong; ``field`` is its name, the message is for the person."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Words(Part):
    """The same in English and Chinese."""

    en: str
    zh: str

    def pick(self, language: str) -> str:
        return self.zh if language.startswith("zh") else self.en


class Choice(Part):
    value: str
    label: Words


class Input(Part):
    """One field of the form. ``choices`` are for the kind ``choice``, ``max_length`` for text."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["text", "choice"] = "text"
    label: Words
    hint: Words = Words(en="", zh="")
    rows: int = Field(default=4, ge=1, le=20)
    max_length: int = Field(default=2000, ge=1, le=20_000)
    choices: tuple[Choice, ...] = ()

    def check(self, value: Any) -> str:
        """The value as it goes into the prompt; raises ``InvalidInput``."""
        if not isinstance(value, str) or not value.strip():
            raise InvalidInput(self.name, _("Fill this in first."))
        if self.kind == "choice":
            if value not in {choice.value for choice in self.choices}:
                raise InvalidInput(self.name, _("Choose one of those offered."))
            return value
        if len(value) > self.max_length:
            excess = len(value) - self.max_length
            message = _("Shorten this by %(excess)d characters.") % {"excess": excess}
            raise InvalidInput(self.name, message)
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidInput(self.name, _("Remove the characters that are no text."))
        return value.strip()


class Label(Part):
    """One possible answer of a scored app, under the task's name for it."""

    value: str
    name: Words


class Definition(Part):
    """``result`` is ``text`` (streamed) or ``scores`` (how likely each of ``labels`` is).

    ``builder`` names a task (``portal.gallery.builders``). ``model`` empty means the
    installation's default. ``sampling`` is for ``text``; its length and its stops are the task's.
    """

    inputs: tuple[Input, ...]
    examples: tuple[dict[str, str], ...] = ()
    builder: str
    result: Literal["text", "scores"] = "text"
    labels: tuple[Label, ...] = ()
    model: str = ""
    sampling: Sampling = Sampling()

    def check(self, given: Any) -> dict[str, str]:
        """The inputs as the builder takes them; raises ``InvalidInput`` for the first wrong one."""
        if not isinstance(given, dict):
            raise InvalidInput("inputs", _("Send the inputs as an object."))
        known = {field.name for field in self.inputs}
        for name in given:
            if name not in known:
                raise InvalidInput(str(name)[:64], _("This app has no such input."))
        return {field.name: field.check(given.get(field.name)) for field in self.inputs}
