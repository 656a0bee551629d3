"""What was said stays: asking again, editing, deleting and restoring."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from portal.accounts.models import User
from portal.catalogue.models import CatalogueModel
from portal.conversations import selectors, services
from portal.conversations.models import Conversation, Message
from portal.conversations.services import Ask
from portal.jobs.errors import IdempotencyConflict, InvalidRequest
from portal.jobs.models import Job
from portal.jobs.viewer import Viewer
from portal.teams.models import Membership, Team
from tests.portal.jobs.conftest import Worker, worker

__all__ = ["worker"]
Say = Callable[..., Message]


@pytest.fixture
def viewer(member: User) -> Viewer:
    return Viewer(user=member)


@pytest.fixture
def conversation(
    redis: Any, transactional_db: None, echo: CatalogueModel, team: Team, viewer: Viewer
) -> Conversation:
    return services.begin(viewer=viewer, team=team, mode="chat", model="echo")


@pytest.fixture
def say(conversation: Conversation, viewer: Viewer, worker: Worker) -> Say:
    """Ask something, and have the worker answer at once."""

    def ask(text: str | None = None, *, answer: str = "ok", **more: Any) -> Message:
        what = {"model": "echo", "mode": "chat", "sampling": {"max_tokens": 8}, "settings": {}}
        wish = Ask(**(what | more), text=text)
        made = services.ask(viewer=viewer, conversation=conversation, wish=wish)
        worker.made = 0
        worker.answer(answer)
        return made

    return ask


def shown(conversation: Conversation) -> list[str]:
    return [selectors.text_of(message) for message in selectors.branch(conversation)]


def prompt_of(message: Message) -> str:
    assert message.job is not None
    ids = Job.objects.get(pk=message.job.pk).input_ids
    return bytes(i for i in ids if i < 256).decode()


def test_an_answer_is_there_before_its_end_is_recorded(
    say: Say, conversation: Conversation
) -> None:
    say("hi", answer="hello")
    assert Job.objects.get().state == "open"
    assert shown(conversation) == ["hi", "hello"]
    made = say("and?", answer="more")
    assert "Assistant: hello" in prompt_of(made)
    assert shown(conversation) == ["hi", "hello", "and?", "more"]
    assert Conversation.objects.get().title == "hi"


def test_asking_again_shows_the_new_answer_and_keeps_the_old(
    say: Say, conversation: Conversation
) -> None:
    first = say("hi", answer="one")
    say(regenerate=first.pk, answer="two")
    assert shown(conversation) == ["hi", "two"]
    assert conversation.messages.count() == 3
    assert conversation.messages.get(active=False) == first
    say("next", answer="three")
    assert shown(conversation) == ["hi", "two", "next", "three"]


def test_editing_begins_a_branch_from_there(say: Say, conversation: Conversation) -> None:
    first = say("hi", answer="one")
    say("and", answer="two")
    made = say("hey", edit=first.parent_id, answer="three")
    assert shown(conversation) == ["hey", "three"]
    assert "hi" not in prompt_of(made)
    assert conversation.messages.count() == 6


def test_a_completion_continues_its_own_text_alone(say: Say, conversation: Conversation) -> None:
    say("first", mode="completion")
    made = say("second", mode="completion")
    assert prompt_of(made) == "second"


def test_a_system_prompt_comes_first(say: Say) -> None:
    assert prompt_of(say("hi", system="Be brief.")).startswith("System: Be brief.\nUser: hi")


def test_the_same_key_says_it_once(
    conversation: Conversation, viewer: Viewer, echo: CatalogueModel
) -> None:
    wish = Ask(model="echo", mode="chat", sampling={"max_tokens": 4}, settings={}, text="hi",
               key=str(uuid.uuid4()))  # fmt: skip
    first = services.ask(viewer=viewer, conversation=conversation, wish=wish)
    again = services.ask(viewer=viewer, conversation=conversation, wish=wish)
    assert again == first
    assert conversation.messages.count() == 2
    other = Ask(model="echo", mode="chat", sampling={"max_tokens": 4}, settings={}, text="ho",
                key=wish.key)  # fmt: skip
    with pytest.raises(IdempotencyConflict):
        services.ask(viewer=viewer, conversation=conversation, wish=other)


@pytest.mark.parametrize("wrong", ["regenerate", "edit"])
def test_the_wrong_kind_of_message_is_refused(say: Say, wrong: str) -> None:
    answer = say("hi")
    target = answer.parent_id if wrong == "regenerate" else answer.pk
    with pytest.raises(InvalidRequest) as refusal:
        say(None if wrong == "regenerate" else "x", **{wrong: target})
    assert refusal.value.field == wrong


def test_searching_finds_titles_and_words(
    say: Say, viewer: Viewer, conversation: Conversation
) -> None:
    say("the quick fox")
    services.rename(conversation=conversation, title="  A   fable ")
    for wanted in ("quick", "FABLE", "fox\0"):
        assert len(selectors.listing(viewer, wanted)) == 1
    assert selectors.listing(viewer, "wolf") == []
    assert len(selectors.listing(viewer, "\ud800")) == 1


def test_what_is_deleted_can_be_restored(viewer: Viewer, conversation: Conversation) -> None:
    assert services.delete(conversation=conversation)
    assert not services.delete(conversation=conversation)
    assert selectors.listing(viewer) == []
    with pytest.raises(Conversation.DoesNotExist):
        selectors.conversation_for(viewer, conversation.pk)
    assert services.restore(conversation=conversation)
    assert len(selectors.listing(viewer)) == 1


def test_others_find_nothing(
    conversation: Conversation, owner: User, outsider: User, viewer: Viewer
) -> None:
    """Not the team's owner either: a conversation is its author's."""
    for other in (Viewer(user=owner), Viewer(user=outsider), Viewer(session="x"), Viewer()):
        with pytest.raises(Conversation.DoesNotExist):
            selectors.conversation_for(other, conversation.pk)
    Membership.objects.filter(user=viewer.user).delete()
    with pytest.raises(Conversation.DoesNotExist):
        selectors.conversation_for(viewer, conversation.pk)
