"""The apps that come with LLMasOS: good tools on a base model, and examples of how to build one.

A changed definition becomes a new version; old runs keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction

from inference_workers.contract import Sampling
from portal.gallery.definition import Choice, Definition, Input, Label, Words
from portal.gallery.models import App, AppVersion

AUTHOR = "LLMasOS"


@dataclass(frozen=True, slots=True)
class BuiltIn:
    slug: str
    icon: str
    category: App.Category
    name: Words
    description: Words
    definition: Definition


TRANSLATE = BuiltIn(
    slug="translate",
    icon="译",
    category=App.Category.TRANSLATION,
    name=Words(en="English ↔ Chinese", zh="英汉互译"),
    description=Words(
        en="Translates a short text either way. It learned how from a few examples in its prompt.",
        zh="翻译英文或中文短文，方法来自提示词里的几个例子。",
    ),
    definition=Definition(
        builder="translate",
        inputs=(
            Input(
                name="text",
                label=Words(en="Text", zh="原文"),
                hint=Words(en="One or two sentences work best.", zh="一两句话效果最好。"),
                max_length=1000,
            ),
            Input(
                name="direction",
                kind="choice",
                label=Words(en="Direction", zh="方向"),
                choices=(
                    Choice(value="en-zh", label=Words(en="English to Chinese", zh="英译汉")),
                    Choice(value="zh-en", label=Words(en="Chinese to English", zh="汉译英")),
                ),
            ),
        ),
        examples=(
            {"text": "Where is the nearest train station?", "direction": "en-zh"},
            {"text": "今天下午我们去公园散步。", "direction": "zh-en"},
            {"text": "The library closes at nine in the evening.", "direction": "en-zh"},
        ),
        sampling=Sampling(temperature=0.0),
    ),
)

SUMMARY = BuiltIn(
    slug="short-summary",
    icon="§",
    category=App.Category.SUMMARIES,
    name=Words(en="Short summary", zh="一句话摘要"),
    description=Words(
        en="One sentence that says what a paragraph of news or notes is about.",
        zh="用一句话说出一段新闻或笔记的内容。",
    ),
    definition=Definition(
        builder="summarize",
        inputs=(
            Input(
                name="text",
                label=Words(en="Text", zh="原文"),
                hint=Words(en="A paragraph or two.", zh="一两段文字。"),
                rows=8,
                max_length=6000,
            ),
        ),
        examples=(
            {
                "text": "The city council voted on Tuesday to turn the old harbour warehouse into "
                "a public library. Work begins in spring and will take two years. The building's "
                "brick walls stay; the roof will carry solar panels."
            },
            {
                "text": "Heavy rain fell over the valley for three days. Two bridges were closed, "
                "and schools stayed shut on Thursday. By Friday the river was falling again and "
                "the first road had been reopened."
            },
        ),
        sampling=Sampling(temperature=0.0),
    ),
)

TONE = BuiltIn(
    slug="review-tone",
    icon="±",
    category=App.Category.ANALYSIS,
    name=Words(en="Tone of a review", zh="评论语气"),
    description=Words(
        en="Positive, negative or mixed, with how likely the model finds each.",
        zh="判断评论是正面、负面还是褒贬参半，并给出各自的可能性。",
    ),
    definition=Definition(
        builder="tone",
        result="scores",
        labels=(
            Label(value="positive", name=Words(en="Positive", zh="正面")),
            Label(value="negative", name=Words(en="Negative", zh="负面")),
            Label(value="mixed", name=Words(en="Mixed", zh="褒贬参半")),
        ),
        inputs=(
            Input(
                name="text",
                label=Words(en="Review", zh="评论"),
                hint=Words(en="What somebody wrote about a thing.", zh="别人对某样东西的评价。"),
                max_length=2000,
            ),
        ),
        examples=(
            {"text": "The kettle boils fast, looks lovely and hardly makes a sound."},
            {"text": "It broke after two days and nobody answered my e-mails."},
            {"text": "The food was wonderful, but we waited an hour for a table."},
        ),
    ),
)

BUILT_IN = (TRANSLATE, SUMMARY, TONE)


def sync_builtin() -> list[str]:
    """Make the gallery's built-in apps what this release says; answers the slugs that changed."""
    return [built_in.slug for built_in in BUILT_IN if _sync(built_in)]


@transaction.atomic
def _sync(built_in: BuiltIn) -> bool:
    shown = {
        "author": AUTHOR,
        "icon": built_in.icon,
        "category": built_in.category,
        "name_en": built_in.name.en,
        "name_zh": built_in.name.zh,
        "description_en": built_in.description.en,
        "description_zh": built_in.description.zh,
    }
    app, made = App.objects.select_related("current").get_or_create(
        slug=built_in.slug, defaults=shown
    )
    if app.team_id is not None:  # somebody published under this name before we did
        return False
    changed = made or any(getattr(app, field) != value for field, value in shown.items())
    if changed:
        App.objects.filter(pk=app.pk).update(**shown)
    definition = built_in.definition.model_dump(mode="json")
    if app.current is None or app.current.definition != definition:
        number = (app.current.number if app.current else 0) + 1
        version = AppVersion.objects.create(app=app, number=number, definition=definition)
        App.objects.filter(pk=app.pk).update(current=version)
        return True
    return changed
