"""The language of what somebody reads without having asked for it: letters.

A page is in the language of the browser that opened it. A letter may be caused by somebody else, or
by nobody; it is in the language that its reader was last known to read.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from django.conf import settings
from django.utils.translation import get_language, override

from portal.accounts.models import User


def spoken_by(user: User | None) -> AbstractContextManager[None]:
    """Writes to ``user`` in their language; unless it is known, in that of whoever is served."""
    return override((user.language if user else "") or get_language() or settings.LANGUAGE_CODE)


def note_language(*, user: User, language: str, chosen: bool = False) -> None:
    """Keep what ``user`` reads: if ``chosen``, in place of another. Ignores what is not spoken."""
    if language not in dict(settings.LANGUAGES):
        return
    known = User.objects.filter(pk=user.pk)
    if (known if chosen else known.filter(language="")).update(language=language):
        user.language = language
