"""A text in one sentence, by example: a base model continues the pattern."""

from __future__ import annotations

from llmasos.tasks.prompt import Prompt, first_line, is_chinese, one_paragraph

MAX_TOKENS = 80

_ENGLISH = (
    (
        "The museum will stay closed until June while workers replace its heating. The director "
        "said that the old pipes had leaked twice this winter and that two paintings were moved "
        "just in time. Tickets already sold remain valid.",
        "Museum closed until June for new heating.",
    ),
    (
        "Bees find their way home by the sun. When clouds hide it, they use the pattern of "
        "polarised light in whatever blue sky is left, and on fully grey days they follow rows of "
        "trees and roads that they have learned.",
        "How bees find their way home.",
    ),
    (
        "The bakery on Mill Street was founded in 1921 and has belonged to the same family ever "
        "since. Last week the owners announced that they will retire, and that two of their "
        "apprentices will take over the ovens in spring.",
        "Family bakery passes to two apprentices.",
    ),
)
"""Short answers: shown longer ones, a small base model copies the text's first sentences."""

_CHINESE = (
    (
        "磨坊街的面包店创办于一九二一年，一直由同一家人经营。上周店主宣布退休，"
        "店铺将在春天交给两位学徒。",
        "磨坊街的老面包店将由两位学徒接手。",
    ),
    (
        "市图书馆宣布，从下个月起每周日延长开放到晚上九点。馆长说，很多上班族只有周末有时间读书，"
        "延长开放是他们多年来的愿望。图书馆还会增加五十个座位。",
        "市图书馆下月起周日开放到晚上九点，并增加座位，方便上班族读书。",
    ),
    (
        "这篇文章介绍了绿茶的制作过程。茶叶采下以后先要杀青，用高温阻止叶子变色，然后揉捻、烘干。"
        "作者还说明了怎样保存茶叶，以及泡茶时水温不能太高的原因。",
        "文章介绍了绿茶的制作、保存和冲泡方法。",
    ),
)


def prompt(text: str) -> Prompt:
    """The prompt for ``text``, in its own language."""
    paragraph = one_paragraph(text)
    chinese = is_chinese(paragraph)
    texts, label, answer = (
        (_CHINESE, "原文：", "一句话摘要：") if chinese else (_ENGLISH, "Text: ", "In short: ")
    )
    shown = "".join(f"{label}{long}\n{answer}{short}\n\n" for long, short in texts) + label
    instruction = (
        f"请用一句话概括下面的文字，只写这句话：\n\n{text}"
        if chinese
        else f"Summarise the following text in one sentence. Write only that sentence.\n\n{text}"
    )
    return Prompt(
        text=f"{shown}{paragraph}\n{answer.rstrip()}",
        stop=("\n",),
        max_tokens=MAX_TOKENS,
        instruction=instruction,
        shown=shown,
    )


def parse(output: str) -> str:
    """The summary in the model's answer."""
    return first_line(output)
