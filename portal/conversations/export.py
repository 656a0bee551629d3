"""The conversations that one person had."""

from __future__ import annotations

from portal.accounts.export import Rows, section
from portal.accounts.models import User
from portal.conversations.models import Conversation
from portal.conversations.selectors import text_of


@section("conversations")
def conversations(user: User) -> Rows:
    """Whole trees: a message names the one that it answers."""
    had = Conversation.objects.filter(user=user).select_related("team").order_by("created_at")
    for talk in had.iterator(chunk_size=100):
        yield {
            "id": talk.pk,
            "title": talk.title,
            "team": talk.team.name,
            "mode": talk.mode,
            "model": talk.model,
            "created": talk.created_at,
            "deleted": talk.deleted_at,
            "messages": [
                {
                    "id": message.pk,
                    "after": message.parent_id,
                    "role": message.role,
                    "text": text_of(message),
                    "at": message.created_at,
                }
                for message in talk.messages.select_related("job")
            ],
        }
