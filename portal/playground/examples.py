"""Worked examples for a base model, which continues text: each shows by example what is wanted.

They are written so that the default model (Gemma 3 270M) goes on with them correctly. Greedy, and
stopped at the end of the line or block that the pattern asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.utils.functional import lazy
from django.utils.translation import get_language


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt to click, in both languages, with the settings under which it works."""

    title_en: str
    title_zh: str
    prompt_en: str
    prompt_zh: str
    settings: dict[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """As the page wants it, in the language of whoever reads it."""
        return {
            "title": _in_their_language(self.title_en, self.title_zh),
            "prompt": _in_their_language(self.prompt_en, self.prompt_zh),
            "mode": "completion",
            "settings": self.settings,
        }


def _chosen(english: str, chinese: str) -> str:
    return chinese if (get_language() or "").startswith("zh") else english


_in_their_language = lazy(_chosen, str)
"""Decided when it is shown, like a lazy translation; Django's JSON encoder knows how."""


def _settings(max_tokens: int, *stop: str) -> dict[str, Any]:
    return {
        "temperature": 0,
        "top_p": 1,
        "top_k": 0,
        "repetition_penalty": 1,
        "max_tokens": max_tokens,
        "stop": list(stop),
        "seed": None,
    }


WORKED: tuple[Example, ...] = (
    Example(
        title_en="Translate by example",
        title_zh="用例子教它翻译",
        prompt_en=(
            "English: Good morning.\nFrench: Bonjour.\n\n"
            "English: Where is the station?\nFrench: Où est la gare ?\n\n"
            "English: The soup is too hot.\nFrench: La soupe est trop chaude.\n\n"
            "English: Thank you very much.\nFrench:"
        ),
        prompt_zh=(
            "中文：早上好。\n英文：Good morning.\n\n"
            "中文：车站在哪里？\n英文：Where is the station?\n\n"
            "中文：汤太烫了。\n英文：The soup is too hot.\n\n"
            "中文：我想要一杯茶。\n英文："
        ),
        settings=_settings(32, "\n"),
    ),
    Example(
        title_en="Tone of a review",
        title_zh="评论的语气",
        prompt_en=(
            "Review: The room was clean and the staff were kind.\nTone: positive\n\n"
            "Review: It broke after two days.\nTone: negative\n\n"
            "Review: Dinner was wonderful, we will come back.\nTone: positive\n\n"
            "Review: We waited an hour and the food was cold.\nTone:"
        ),
        prompt_zh=(
            "评论：房间很干净，服务员很热情。\n语气：正面\n\n"
            "评论：用了两天就坏了。\n语气：负面\n\n"
            "评论：晚餐非常好吃，我们还会再来。\n语气：正面\n\n"
            "评论：等了一个小时，菜还是凉的。\n语气："
        ),
        settings=_settings(16, "\n"),
    ),
    Example(
        title_en="A function from its comment",
        title_zh="由注释写函数",
        prompt_en=(
            "# Return the larger of two numbers.\ndef larger(a, b):\n"
            "    return a if a > b else b\n\n\n"
            "# Return the sum of a list of numbers.\ndef total(numbers):\n"
            "    return sum(numbers)\n\n\n"
            "# Return True if a number is even.\ndef is_even(n):\n"
        ),
        prompt_zh=(
            "# 返回两个数中较大的一个。\ndef larger(a, b):\n"
            "    return a if a > b else b\n\n\n"
            "# 返回一列数的和。\ndef total(numbers):\n"
            "    return sum(numbers)\n\n\n"
            "# 如果一个数是偶数，返回 True。\ndef is_even(n):\n"
        ),
        settings=_settings(48, "\n\n", "\n#"),
    ),
    Example(
        title_en="Questions about a shop",
        title_zh="关于一家店的问题",
        prompt_en=(
            "Facts: The shop opens at 9 and closes at 18. It is closed on Sunday. "
            "Parcels can be returned within 30 days. Tea costs 3 euros.\n\n"
            "Question: When does the shop open?\nAnswer: The shop opens at 9.\n\n"
            "Question: How much is the tea?\nAnswer: Tea costs 3 euros.\n\n"
            "Question: Can I return a parcel?\nAnswer:"
        ),
        prompt_zh=(
            "事实：商店九点开门，六点关门。星期天不营业。包裹三十天内可以退货。茶三欧元一包。\n\n"
            "问题：商店几点开门？\n回答：商店九点开门。\n\n"
            "问题：茶多少钱？\n回答：茶三欧元一包。\n\n"
            "问题：商店星期天营业吗？\n回答："
        ),
        settings=_settings(40, "\n"),
    ),
)

EXAMPLES: list[dict[str, Any]] = [example.described() for example in WORKED]
