"""The prompt builders that a definition may name, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text for the model to continue, and where its answer ends."""

    text: str
    stop: tuple[str, ...] = ()


Builder = Callable[[Mapping[str, str]], Prompt]


def build(name: str, inputs: Mapping[str, str]) -> Prompt:
    return BUILDERS[name](inputs)


BUILDERS: dict[str, Builder] = {
    "translate": lambda i: Prompt(f"X: {i['text']}\nY:", ("\n",)),
    "summarize": lambda i: Prompt(f"X: {i['text']}\nY:", ("\n",)),
    "tone": lambda i: Prompt(f"X: {i['text']}\nY:"),
}
