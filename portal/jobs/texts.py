"""The texts of which an encoder makes vectors: from what a caller sends to token ids.

Every refusal names the text by its number, its length and what is allowed. Pure, but for the
tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmasos.text.tokenizer import Tokenizer
from portal.catalogue.models import CatalogueModel
from portal.jobs.checks import clean_text
from portal.jobs.errors import InvalidRequest

MOST_TEXTS = 2_048
MOST_TOKENS = 300_000
"""Of a request's texts together."""
MOST_CHARACTERS = 2_000_000
LONG = 64
"""Characters a token beyond which a text's words are counted before it is encoded: each has at
least one token, and counting them takes no time."""

Text = str | Sequence[int]


def read(
    texts: Sequence[Text], *, alone: bool, model: CatalogueModel, tokenizer: Tokenizer
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token ids of all texts, one after another, and how many each has.

    ``alone``: the caller sent one text, not a list of one.

    Raises:
        InvalidRequest: none, too many, too long, empty, or not text.
    """
    if not texts:
        raise InvalidRequest("input", "The input is empty. Send at least one text.", "empty_input")
    if len(texts) > MOST_TEXTS:
        raise InvalidRequest(
            "input",
            f"There are {len(texts):,} texts; at most {MOST_TEXTS:,} are taken at once. Send them "
            "in several requests.",
        )
    characters = sum(len(text) for text in texts if isinstance(text, str))
    if characters > MOST_CHARACTERS:
        raise InvalidRequest(
            "input",
            f"The texts have {characters:,} characters; at most {MOST_CHARACTERS:,} are read at "
            "once. Send them in several requests.",
            "context_length_exceeded",
        )
    ids: list[int] = []
    lengths: list[int] = []
    for number, text in enumerate(texts):
        found = _ids(text, "input" if alone else f"input[{number}]", model, tokenizer)
        ids += found
        lengths.append(len(found))
        if len(ids) > MOST_TOKENS:  # the rest is not worth reading
            raise InvalidRequest(
                "input",
                f"The texts have more than {MOST_TOKENS:,} tokens, the most that are taken at "
                "once. Send them in several requests.",
                "context_length_exceeded",
            )
    return tuple(ids), tuple(lengths)


def _ids(text: Text, field: str, model: CatalogueModel, tokenizer: Tokenizer) -> Sequence[int]:
    if not text:
        raise InvalidRequest(field, f"{field} is empty. Leave it out, or write something.",
                             "empty_input")  # fmt: skip
    most = model.context_length
    if not isinstance(text, str):
        _check_length(field, len(text), model)
        for token in text:
            if not 0 <= token < model.vocab_size:
                raise InvalidRequest(
                    field,
                    f"{field}: {token} is no token of this model: ids run from 0 to "
                    f"{model.vocab_size - 1}.",
                )
        return text
    clean_text(text, field)
    if len(text) > LONG * most:
        _check_length(field, len(text.split()), model, least=True)
    found = tokenizer.encode(text)
    _check_length(field, len(found), model)
    return found


def _check_length(field: str, length: int, model: CatalogueModel, *, least: bool = False) -> None:
    if length > model.context_length:
        raise InvalidRequest(
            field,
            f"{field} has {'at least ' if least else ''}{length:,} tokens; {model.pk} reads at "
            f"most {model.context_length:,}. Shorten it, or send it in parts.",
            "context_length_exceeded",
        )


def check_dimensions(wanted: int | None, model: CatalogueModel) -> None:
    """Refuse what the model can't do. Raises ``InvalidRequest``."""
    if wanted is not None and wanted != model.dimensions:
        raise InvalidRequest(
            "dimensions",
            f"{model.pk} makes vectors of {model.dimensions} numbers, and none of {wanted}. Leave "
            "it out.",
        )
