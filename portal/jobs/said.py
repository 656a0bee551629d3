"""What a refusal says on a page, in its reader's language.

Services speak English, to programs too, with every number. A page in English repeats that; a page
in another language says by the refusal's code what happened and what to do next.
"""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from portal.jobs.errors import JobRefused
from portal.usage.services import OverBudget

SENTENCES: dict[str, Promise] = {
    "empty_prompt": gettext_lazy("The prompt is empty. Write something."),
    "bad_text": gettext_lazy("The text has characters that are none. Remove them and try again."),
    "bad_json": gettext_lazy("The request can't be read. Reload the page and try again."),
    "request_too_large": gettext_lazy("The request is too large. Shorten the prompt."),
    "context_length_exceeded": gettext_lazy(
        "Prompt and answer together don't fit into the model's context. Shorten the prompt, or ask "
        "for fewer tokens."
    ),
    "model_not_found": gettext_lazy("There is no such model here. Choose another one."),
    "model_not_supported": gettext_lazy("This model can't do that. Choose another one."),
    "model_unavailable": gettext_lazy(
        "This model can't be used at the moment. Choose another one, or ask an operator."
    ),
    "queue_full": gettext_lazy("Too many requests wait for this model. Try again in a moment."),
    "unavailable": gettext_lazy("The queue can't be reached. Try again in a moment."),
    "idempotency_conflict": gettext_lazy("This was sent before with something else in it. Reload."),
}


def said(refusal: JobRefused | OverBudget) -> str:
    """The refusal, for whoever reads the page that is being answered."""
    text = str(refusal)
    if (get_language() or "en").startswith("en"):
        return text
    if isinstance(refusal, OverBudget):
        sentence = _(
            "This request may use up to %(needed)d tokens, and %(left)d are left of this month's "
            "budget. Ask for fewer tokens, or have the budget raised."
        )
        return sentence % {"needed": refusal.needed, "left": refusal.left}
    if refusal.code in SENTENCES:
        return str(SENTENCES[refusal.code])
    if refusal.field and text.isascii():  # what is not has been translated already
        sentence = _("“%(field)s” can't have this value. Change it and try again.")
        return sentence % {"field": refusal.field}
    return text
