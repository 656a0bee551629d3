"""Reads about conversations; each takes the viewer and finds only the viewer's own."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.db.models import Q, QuerySet

from portal.conversations.models import Conversation, Message
from portal.jobs import selectors as jobs
from portal.jobs.models import Job
from portal.jobs.viewer import Viewer
from portal.teams.models import Team

LISTED = 100


def visible_to(viewer: Viewer, *, deleted: bool = False) -> QuerySet[Conversation]:
    """A user's own, in teams that the user still belongs to; a visitor's of the session."""
    if viewer.user is not None:
        mine = Q(user=viewer.user, team__memberships__user=viewer.user, team__delete_at=None)
    elif viewer.session:
        mine = Q(user=None, session=viewer.session)
    else:
        return Conversation.objects.none()
    return Conversation.objects.filter(mine, deleted_at__isnull=not deleted)


def conversation_for(
    viewer: Viewer, conversation_id: uuid.UUID, *, deleted: bool = False
) -> Conversation:
    """Raises ``Conversation.DoesNotExist`` also for somebody else's."""
    found = visible_to(viewer, deleted=deleted).select_related("team", "user")
    return found.get(pk=conversation_id)


def listing(viewer: Viewer, search: str = "", *, team: Team | None = None) -> list[dict[str, Any]]:
    """Title and date, the newest first; with ``search``, those that say it anywhere.

    With ``team`` only that team's.
    """
    found = visible_to(viewer)
    if team is not None:
        found = found.filter(team=team)
    wanted = " ".join(search.replace("\0", "").split())[:200]
    wanted = wanted.encode(errors="ignore").decode()
    if wanted:
        said = Message.objects.filter(text__icontains=wanted).values("conversation")
        found = found.filter(Q(title__icontains=wanted) | Q(pk__in=said))
    rows = found.order_by("-updated_at").values("id", "title", "updated_at")[:LISTED]
    return [
        {"id": str(r["id"]), "title": r["title"], "updated_at": r["updated_at"].isoformat()}
        for r in rows
    ]


def branch(conversation: Conversation, *, upto: uuid.UUID | None = None) -> list[Message]:
    """The messages that are shown, the first one first; with ``upto`` the way to that message.

    Raises:
        Message.DoesNotExist: ``upto`` is not in the conversation.
    """
    tree = list(conversation.messages.values_list("pk", "parent_id", "active"))
    way = _shown(tree) if upto is None else _way_to(tree, upto)
    jobs_too = Message.objects.select_related("job")
    found = jobs_too.defer("job__input_ids", "job__prefixes").in_bulk(way)
    return [found[pk] for pk in way]


Node = tuple[uuid.UUID, uuid.UUID | None, bool]


def _shown(tree: Sequence[Node]) -> list[uuid.UUID]:
    """From the root, always the newest active child."""
    shown_child = {parent: pk for pk, parent, active in tree if active}
    way: list[uuid.UUID] = []
    following = shown_child.get(None)
    while following is not None:
        way.append(following)
        following = shown_child.get(following)
    return way


def _way_to(tree: Sequence[Node], target: uuid.UUID) -> list[uuid.UUID]:
    parents = {pk: parent for pk, parent, _ in tree}
    if target not in parents:
        raise Message.DoesNotExist
    way: list[uuid.UUID] = []
    at: uuid.UUID | None = target
    while at is not None:
        way.append(at)
        at = parents[at]
    return way[::-1]


def last_shown(conversation: Conversation) -> Message | None:
    """The end of the branch that is shown, without what it says."""
    way = _shown(list(conversation.messages.values_list("pk", "parent_id", "active")))
    return conversation.messages.get(pk=way[-1]) if way else None


def text_of(message: Message) -> str:
    """A user's own words, or what the job has said by now."""
    return jobs.said(message.job).text if message.job is not None else message.text


def describe(conversation: Conversation) -> dict[str, Any]:
    """The conversation as the page shows it."""
    return summary(conversation) | {
        "settings": conversation.settings,
        "messages": [describe_message(message) for message in branch(conversation)],
    }


def summary(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": str(conversation.pk),
        "title": conversation.title,
        "mode": conversation.mode,
        "model": conversation.model,
        "updated_at": conversation.updated_at.isoformat(),
    }


def describe_message(message: Message) -> dict[str, Any]:
    """``text`` is what the job's entries up to ``last_seq`` say: watch it from there on."""
    said = jobs.said(message.job) if message.job is not None else None
    return {
        "id": str(message.pk),
        "role": message.role,
        "text": said.text if said else message.text,
        "job": _describe_job(message.job, said.last_seq) if message.job and said else None,
    }


def _describe_job(job: Job, last_seq: int) -> dict[str, Any]:
    ended = job.state != Job.State.OPEN
    failed = {"code": job.error_code, "message": job.error_message}
    return {
        "id": job.pk.hex,
        "state": job.state,
        "last_seq": last_seq,
        "stats": asdict(jobs.stats(job)) if ended else None,
        "reason": job.reason or None,
        "error": failed if job.error_code else None,
    }
