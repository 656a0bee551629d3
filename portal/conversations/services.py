"""Writes about conversations: begin, say, rename, delete, restore.

A conversation is a tree. Asking again or editing adds a sibling and shows that one instead;
nothing that was said is lost.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from portal.conversations.models import Conversation, Message
from portal.conversations.selectors import branch, last_shown, text_of
from portal.jobs.checks import clean_text
from portal.jobs.errors import InvalidRequest
from portal.jobs.inputs import ChatInput, Input, TextInput
from portal.jobs.models import Job
from portal.jobs.services import Draft, prepare_job, submit_job
from portal.jobs.viewer import Viewer
from portal.teams.models import Team

SOURCE = "playground"
TITLE = 80
TITLE_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """What somebody wants to hear next: exactly one of a new ``text``, an answer to
    ``regenerate``, or ``edit``, a message of their own that ``text`` replaces."""

    model: str
    mode: str
    sampling: Mapping[str, Any]
    settings: Mapping[str, Any]
    text: str | None = None
    regenerate: uuid.UUID | None = None
    edit: uuid.UUID | None = None
    seed: int | None = None
    system: str = ""
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the tree the answer goes: behind ``question``, which is new unless it has a row."""

    history: list[Message]
    question: Message
    replaces: Message | None = None


def begin(*, viewer: Viewer, team: Team, mode: str, model: str) -> Conversation:
    """An empty conversation. Raises ``InvalidRequest``."""
    if mode not in Conversation.Mode.values:
        raise InvalidRequest("mode", "mode is chat or completion.")
    return Conversation.objects.create(
        team=team,
        user=viewer.user,
        session=viewer.session,
        mode=mode,
        model=clean_text(model, "model")[:64],
    )


def ask(*, viewer: Viewer, conversation: Conversation, wish: Ask) -> Message:
    """Make the job for the next answer and write both down; the answer's message.

    The same key again gives the same message. Raises what ``create_job`` raises.
    """
    place = _place(conversation, wish)
    draft = prepare_job(
        team=conversation.team,
        user=viewer.user,
        session=viewer.session,
        source=SOURCE,
        model=wish.model,
        input=_input(place, wish),
        sampling=wish.sampling,
        seed=wish.seed,
        idempotency_key=wish.key,
        fingerprint=_fingerprint(conversation, wish),
    )
    if isinstance(draft, Job):
        return _answer_of(draft)
    with transaction.atomic():
        job = submit_job(draft)
        if job is not draft.job:
            return _answer_of(job)
        return _write(conversation, wish, place, draft)


def _place(conversation: Conversation, wish: Ask) -> _Place:
    given = (wish.regenerate, wish.edit, wish.text if wish.edit is None else None)
    if sum(value is not None for value in given) != 1 or (wish.edit and wish.text is None):
        raise InvalidRequest("text", "Send one of text, regenerate, or edit with a text.")
    try:
        if wish.regenerate is not None:
            way = branch(conversation, upto=wish.regenerate)
            if way[-1].role != Message.Role.ASSISTANT or len(way) < 2:
                raise InvalidRequest("regenerate", "Only an answer can be made again.")
            return _Place(history=way[:-2], question=way[-2], replaces=way[-1])
        text = clean_text(wish.text or "", "text")
        if not text.strip():
            raise InvalidRequest("text", "The prompt is empty. Write something.", "empty_prompt")
        replaced = None
        if wish.edit is not None:
            way = branch(conversation, upto=wish.edit)
            if way[-1].role != Message.Role.USER:
                raise InvalidRequest("edit", "Only your own message can be edited.")
            history, replaced = way[:-1], way[-1]
        elif wish.mode == Conversation.Mode.COMPLETION:  # nothing before it is read
            last = last_shown(conversation)
            history = [last] if last else []
        else:
            history = branch(conversation)
    except Message.DoesNotExist:
        raise InvalidRequest(
            "regenerate" if wish.regenerate else "edit", "There is no such message here."
        ) from None
    parent = history[-1] if history else None
    question = Message(conversation=conversation, parent=parent, role=Message.Role.USER, text=text)
    return _Place(history=history, question=question, replaces=replaced)


def _input(place: _Place, wish: Ask) -> Input:
    if wish.mode == Conversation.Mode.COMPLETION:
        return TextInput(place.question.text)
    if wish.mode != Conversation.Mode.CHAT:
        raise InvalidRequest("mode", "mode is chat or completion.")
    said = [{"role": m.role, "content": text_of(m)} for m in (*place.history, place.question)]
    system = [{"role": "system", "content": wish.system}] if wish.system.strip() else []
    return ChatInput([*system, *said])


def _fingerprint(conversation: Conversation, wish: Ask) -> str:
    """The request itself: what it finds in the conversation changes with its first success."""
    what = (conversation.pk, wish.text, wish.regenerate, wish.edit, wish.model, wish.mode,
            wish.settings)  # fmt: skip
    return json.dumps(what, sort_keys=True, default=str)


def _write(conversation: Conversation, wish: Ask, place: _Place, draft: Draft) -> Message:
    """Question (if new) and answer; siblings that they replace are no longer shown."""
    if place.replaces is not None:
        siblings = Message.objects.filter(
            conversation=conversation, parent_id=place.replaces.parent_id, active=True
        )
        siblings.update(active=False)
    if place.question._state.adding:
        place.question.save(force_insert=True)
    answer = Message.objects.create(
        conversation=conversation,
        parent=place.question,
        role=Message.Role.ASSISTANT,
        job=draft.job,
    )
    conversation.title = conversation.title or _title(place.question.text)
    conversation.mode, conversation.model = wish.mode, wish.model
    conversation.settings = dict(wish.settings)
    conversation.save(update_fields=["title", "mode", "model", "settings", "updated_at"])
    return answer


def _answer_of(job: Job) -> Message:
    found = Message.objects.select_related("job", "conversation").filter(job=job).first()
    if found is None:
        raise InvalidRequest(
            "client_key", "This key was used for another request. Use a new key.",
            "idempotency_conflict",
        )  # fmt: skip
    return found


def _title(text: str) -> str:
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if len(first) <= TITLE else first[: TITLE - 1].rstrip() + "…"


def rename(*, conversation: Conversation, title: str) -> None:
    title = " ".join(clean_text(title, "title").split())
    if not 1 <= len(title) <= TITLE_LIMIT:
        raise InvalidRequest("title", f"A title has 1 to {TITLE_LIMIT} characters.")
    conversation.title = title
    conversation.save(update_fields=["title", "updated_at"])


def change_settings(*, conversation: Conversation, settings: Mapping[str, Any]) -> None:
    conversation.settings = dict(settings)
    conversation.save(update_fields=["settings", "updated_at"])


def delete(*, conversation: Conversation) -> bool:
    """Hide it; ``False`` if it was hidden already. ``restore`` brings it back."""
    shown = Conversation.objects.filter(pk=conversation.pk, deleted_at=None)
    return bool(shown.update(deleted_at=timezone.now()))


def restore(*, conversation: Conversation) -> bool:
    hidden = Conversation.objects.filter(pk=conversation.pk, deleted_at__isnull=False)
    return bool(hidden.update(deleted_at=None))
