"""What a task hands to a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmasos.errors import InvalidRequest

MAX_INPUT = 200_000
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """``text`` shows a base model the task by example; ``instruction`` tells an instruct model.

    The answer ends at any of ``stop``, or after ``max_tokens``. ``text`` begins with ``shown``,
    which is the task's own and the same whatever it is asked about.
    """

    text: str
    stop: tuple[str, ...]
    max_tokens: int
    instruction: str
    shown: str = ""

    def messages(self) -> list[dict[str, str]]:
        """The task for a model that follows instructions."""
        return [{"role": "user", "content": self.instruction}]


def is_chinese(text: str) -> bool:
    """Whether a fifth of its letters are Chinese: Latin names and terms don't count much."""
    chinese = len(_CHINESE.findall(text))
    return chinese * 5 >= max(1, len(_LETTER.findall(text)))


def one_paragraph(text: str) -> str:
    """The text on one line, as the examples are.

    Raises:
        InvalidRequest: it is empty or absurdly long.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest("The text is empty. Give it at least a word.")
    if len(text) > MAX_INPUT:
        raise InvalidRequest(
            f"The text has {len(text):,} characters; at most {MAX_INPUT:,} are read. Shorten it."
        )
    return " ".join(text.split())


def first_line(output: str) -> str:
    """The answer's first line that says something: what follows is the model's own next example."""
    for line in output.splitlines():
        if line.strip():
            return line.strip()
    return ""
