"""From what a caller sends to token ids: a text, several, a conversation, or ids as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from llmasos.errors import ChatTemplateError, TokenizerError
from llmasos.text.chat import render_chat, render_transcript, text_of
from llmasos.text.tokenizer import Tokenizer
from llmasos.text.tools import spelled_out, takes_tools
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import embedding_models, prepared_folder
from portal.jobs.checks import clean_text
from portal.jobs.errors import InvalidRequest, ModelUnavailable
from portal.jobs.texts import check_dimensions
from portal.jobs.texts import read as read_texts

MAX_BYTES = 4_000_000
"""Of a prompt's text. Longer ones are refused before anything looks at them."""


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text to continue."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatInput:
    """Messages with ``role`` and ``content``, and the tools that the answer may call."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class TokenInput:
    """Token ids, taken as they are."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class EmbeddingInput:
    """Texts, or their token ids, of which an encoder makes a vector each. ``alone``: the caller
    sent one text, not a list. ``dimensions``: how long vectors shall be, if that was said."""

    texts: Sequence[str | Sequence[int]]
    alone: bool = False
    dimensions: int | None = None


Input = TextInput | ChatInput | TokenInput | EmbeddingInput


@dataclass(frozen=True, slots=True)
class Prompt:
    """``ids`` for the model, and stop sequences that the way of asking brings with it. With
    ``lengths`` they are several texts, one after another."""

    ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens that the model must see together."""
        return max(self.lengths, default=len(self.ids))


def read_input(given: Input, *, model: CatalogueModel) -> Prompt:
    """Exactly the tokens that the model will see.

    Raises:
        InvalidRequest: empty, too long, or not text.
        ModelUnavailable: the model's files are gone.
    """
    _check_kind(given, model)
    if isinstance(given, EmbeddingInput):
        check_dimensions(given.dimensions, model)
        ids, lengths = read_texts(
            given.texts, alone=given.alone, model=model, tokenizer=tokenizer_of(model)
        )
        return Prompt(ids, lengths=lengths)
    if isinstance(given, TokenInput):
        return Prompt(_checked_ids(given.ids, model))
    if isinstance(given, TextInput):
        if not given.text:
            raise InvalidRequest("prompt", "The prompt is empty. Write something.", "empty_prompt")
        return Prompt(_encode(clean_text(given.text, "prompt"), model, "prompt"))
    return _chat(given.messages, given.tools, model)


def _check_kind(given: Input, model: CatalogueModel) -> None:
    """An encoder makes vectors and nothing else, and nothing else makes vectors."""
    if isinstance(given, EmbeddingInput) == model.embeds:
        return
    if model.embeds:
        remedy = "can't go on from a text. Send texts to /v1/embeddings, or choose another model."
        raise InvalidRequest(
            "model", f"{model.pk} makes embeddings and {remedy}", "model_not_supported"
        )
    found = ", ".join(embedding_models().values_list("pk", flat=True))
    remedy = (
        f"Models that do: {found}."
        if found
        else ("None here does yet. An operator can run: manage.py models prepare all-minilm-l6-v2")
    )
    said = f"{model.pk} makes no embeddings. {remedy}"
    raise InvalidRequest("model", said, "model_not_supported")


def count_tokens(text: str, *, model: CatalogueModel) -> int:
    """How many tokens ``text`` has for ``model``, begun as a prompt is."""
    _check_size([text], "text")
    return tokenizer_of(model).count(clean_text(text, "text")) if text else 0


def leading_tokens(text: str, ids: Sequence[int], *, model: CatalogueModel) -> int:
    """How many of ``ids`` come from ``text``, which they begin with, and from nothing after it."""
    alone = _encode(clean_text(text, "prompt"), model, "prompt") if text else ()
    together = zip(alone, ids, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], together))


def tokenizer_of(model: CatalogueModel) -> Tokenizer:
    """Loaded once for each version of the file."""
    try:
        return Tokenizer.load(prepared_folder(model))
    except TokenizerError as error:
        raise ModelUnavailable(
            f"{model.pk} can't be used: its tokenizer is missing or broken. Prepare it again."
        ) from error


def _chat(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    model: CatalogueModel,
) -> Prompt:
    try:
        texts = [text_of(message) for message in messages]
        _check_size(texts, "messages")
        for text in texts:
            clean_text(text, "messages")
        if not any(text.strip() for text in texts):
            raise InvalidRequest("messages", "The messages are empty. Write something.",
                                 "empty_prompt")  # fmt: skip
        template = _template(model)
        if template is None:
            transcript = render_transcript(spelled_out(messages, tools))
            return Prompt(_encode(transcript.text, model, "messages"), transcript.stop)
        source, bos, eos = template
        if takes_tools(source):
            rendered = render_chat(source, messages, bos=bos, eos=eos, tools=tools)
        else:
            rendered = render_chat(source, spelled_out(messages, tools), bos=bos, eos=eos)
    except ChatTemplateError as error:
        raise InvalidRequest("messages", error.message, error.code) from error
    return Prompt(_encode(rendered, model, "messages"))


def _template(model: CatalogueModel) -> tuple[str, str, str] | None:
    """An instruct model's own template with its BOS and EOS; a base model has none."""
    path = prepared_folder(model) / "chat_template.jinja"
    if model.kind != CatalogueModel.Kind.INSTRUCT or not path.is_file():
        return None
    return _read_template(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _read_template(path: Path, modified_ns: int) -> tuple[str, str, str]:
    manifest = json.loads((path.parent / "manifest.json").read_bytes())
    tokenizer = Tokenizer.load(path.parent)
    bos, eos = manifest.get("bos_token_id"), manifest.get("eos_token_ids") or [None]
    spell = [tokenizer.token_text(i) if isinstance(i, int) else "" for i in (bos, eos[0])]
    return path.read_text(), spell[0], spell[1]


def _encode(text: str, model: CatalogueModel, field: str) -> tuple[int, ...]:
    _check_size([text], field)
    tokenizer = tokenizer_of(model)
    try:
        ids = tokenizer.encode(text, at_most=model.context_length)
    except TokenizerError as error:
        code = "context_length_exceeded" if error.code == "too_long" else error.code
        raise InvalidRequest(field, error.message, code) from error
    if not ids:
        raise InvalidRequest(field, "The prompt is empty. Write something.", "empty_prompt")
    return tuple(ids)


def _check_size(texts: Sequence[str], field: str) -> None:
    size = sum(map(len, texts))
    if size > MAX_BYTES:
        raise InvalidRequest(
            field,
            f"The prompt has {size:,} characters; at most {MAX_BYTES:,} are read. Shorten it.",
            "context_length_exceeded",
        )


def _checked_ids(ids: Sequence[int], model: CatalogueModel) -> tuple[int, ...]:
    if not ids:
        raise InvalidRequest("prompt", "The prompt is empty. Write something.", "empty_prompt")
    if len(ids) > model.context_length:
        raise InvalidRequest(
            "prompt",
            f"The prompt has {len(ids):,} tokens; the model's context holds "
            f"{model.context_length:,}. Shorten it.",
            "context_length_exceeded",
        )
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise InvalidRequest("prompt", "Token ids are whole numbers.")
        if not 0 <= token < model.vocab_size:
            raise InvalidRequest(
                "prompt",
                f"{token} is no token of this model: ids run from 0 to {model.vocab_size - 1}.",
            )
    return tuple(ids)
