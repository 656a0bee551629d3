"""English to Chinese and back, by example."""

from __future__ import annotations

from llmasos.errors import InvalidRequest
from llmasos.tasks.prompt import Prompt, first_line, is_chinese, one_paragraph

DIRECTIONS = ("en-zh", "zh-en")
MAX_TOKENS = 200

_PAIRS = (
    ("Good morning, did you sleep well?", "早上好，你睡得好吗？"),
    ("The train leaves at half past seven.", "火车七点半开。"),
    ("I would like a cup of tea without sugar, please.", "请给我一杯不加糖的茶。"),
    ("She has worked in this hospital for ten years.", "她在这家医院工作了十年。"),
    ("If it rains tomorrow, we will stay at home.", "如果明天下雨，我们就待在家里。"),
)


def prompt(text: str, direction: str | None = None) -> Prompt:
    """The prompt for ``text``; without a direction, into the other language than its own.

    Raises:
        InvalidRequest: the direction is unknown, or the text empty or absurdly long.
    """
    line = one_paragraph(text)
    chosen = direction or ("zh-en" if is_chinese(line) else "en-zh")
    if chosen not in DIRECTIONS:
        raise InvalidRequest(f"{chosen!r} is not a direction. Choose en-zh or zh-en.")
    into_chinese = chosen == "en-zh"
    names = ("English", "Chinese") if into_chinese else ("Chinese", "English")
    pairs = _PAIRS if into_chinese else [(chinese, english) for english, chinese in _PAIRS]
    shown = "".join(f"{names[0]}: {a}\n{names[1]}: {b}\n\n" for a, b in pairs) + f"{names[0]}: "
    return Prompt(
        text=f"{shown}{line}\n{names[1]}:",
        stop=("\n",),
        max_tokens=MAX_TOKENS,
        instruction=(
            f"Translate the following text from {names[0]} into {names[1]}. Write only the "
            f"translation.\n\n{text}"
        ),
        shown=shown,
    )


def parse(output: str) -> str:
    """The translation in the model's answer."""
    return first_line(output)
