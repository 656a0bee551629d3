"""The tasks of ``llmasos.tasks`` that a definition may name, and nothing else.

To add one: write it there, and name it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmasos.errors import LLMasOSError
from llmasos.tasks import summarize, tone, translate
from llmasos.tasks.prompt import Prompt
from llmasos.tasks.tone import Question, Tone
from portal.gallery.definition import Definition, InvalidInput

Inputs = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Writer:
    """A task whose answer is text: what to send, and what of the model's output is the answer."""

    prompt: Callable[[Inputs], Prompt]
    parse: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Scorer:
    """A task whose answer is a choice: what to score, and what the scores say."""

    question: Callable[[Inputs], Question]
    parse: Callable[[Question, list[float]], Tone]


WRITERS = {
    "translate": Writer(lambda i: translate.prompt(i["text"], i["direction"]), translate.parse),
    "summarize": Writer(lambda i: summarize.prompt(i["text"]), summarize.parse),
}
SCORERS = {
    "tone": Scorer(lambda i: tone.question(i["text"]), tone.parse),
}


def prompt(definition: Definition, inputs: Inputs) -> Prompt:
    """Raises ``InvalidInput`` where the task refuses the text."""
    try:
        return WRITERS[definition.builder].prompt(inputs)
    except LLMasOSError as error:
        raise InvalidInput(definition.inputs[0].name, error.message) from error


def question(definition: Definition, inputs: Inputs) -> Question:
    """Raises ``InvalidInput`` where the task refuses the text."""
    try:
        return SCORERS[definition.builder].question(inputs)
    except LLMasOSError as error:
        raise InvalidInput(definition.inputs[0].name, error.message) from error
