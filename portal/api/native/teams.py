"""``/api/v1/teams``, ``/api/v1/keys`` and ``/api/v1/usage``: the key's own team."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from django.http import HttpRequest
from django.utils import timezone
from ninja import Path, Query, Router, Status

from portal.api.auth import KEY, Caller
from portal.api.creation import uuid_or_none
from portal.api.errors import ERRORS, ApiError, ErrorBody
from portal.api.native.common import caller_of, not_found
from portal.api.native.schemas import (
    KeyDetail,
    KeyList,
    MadeKey,
    NewKey,
    TeamDetail,
    TeamList,
    UsageReport,
)
from portal.teams.keys import Terms
from portal.teams.models import ApiKey
from portal.teams.rules import MANAGE_KEYS, MANAGE_MEMBERS, may
from portal.teams.selectors import keys_of, members_of, team_for
from portal.teams.services import KeyRefused, create_key, revoke_key
from portal.threads import in_thread
from portal.usage.selectors import hours, standing

router = Router(tags=["Team"])
LONGEST = timedelta(days=31)
Id = Annotated[str, Path(max_length=64)]


@router.get("/teams", auth=KEY, summary="Your teams", response={200: TeamList, ERRORS: ErrorBody})
async def list_teams(request: HttpRequest) -> Any:
    """A key belongs to one team, so there is one."""
    caller = caller_of(request)
    return {"teams": [await in_thread(_team)(caller, str(caller.team.pk))]}


@router.get(
    "/teams/{team_id}", auth=KEY, summary="One team", response={200: TeamDetail, ERRORS: ErrorBody}
)
async def read_team(request: HttpRequest, team_id: Id) -> Any:
    return await in_thread(_team)(caller_of(request), team_id)


@router.get(
    "/keys", auth=KEY, summary="The team's keys", response={200: KeyList, ERRORS: ErrorBody}
)
async def list_keys(request: HttpRequest) -> Any:
    return {"keys": await in_thread(_keys)(caller_of(request))}


@router.post("/keys", auth=KEY, summary="Make a key", response={201: MadeKey, ERRORS: ErrorBody})
async def make_key(request: HttpRequest, body: NewKey) -> Any:
    """The answer is the only place where the whole key is ever shown."""
    return Status(201, await in_thread(_make_key)(caller_of(request), body))


@router.delete(
    "/keys/{key_id}", auth=KEY, summary="Revoke a key",
    response={200: KeyDetail, ERRORS: ErrorBody},
)  # fmt: skip
async def delete_key(request: HttpRequest, key_id: Id) -> Any:
    """It stops working at once, also where it is in use. A key may revoke itself."""
    return await in_thread(_revoke)(caller_of(request), key_id)


@router.get(
    "/usage", auth=KEY, summary="What the team has used",
    response={200: UsageReport, ERRORS: ErrorBody},
)  # fmt: skip
async def usage(
    request: HttpRequest,
    since: Annotated[datetime | None, Query()] = None,
    until: Annotated[datetime | None, Query()] = None,
) -> Any:
    """By hour, model and source; the last day unless told otherwise, 31 days at most."""
    return await in_thread(_usage)(caller_of(request), since, until)


def _team(caller: Caller, team_id: str) -> dict[str, Any]:
    team = team_for(caller.user, team_id)
    if team is None or team.pk != caller.team.pk:
        raise not_found("team")
    members = list(members_of(team, viewer=caller.user))
    role = next((member.role for member in members if member.user_id == caller.user.pk), None)
    return {
        "id": team.pk,
        "name": team.name,
        "kind": team.kind,
        "role": role,
        "members": [
            {"name": member.user.name, "email": member.user.email, "role": member.role}
            for member in members
        ],
    }


def _keys(caller: Caller) -> list[dict[str, Any]]:
    return [_key(key) for key in keys_of(caller.team, viewer=caller.user)]


def _make_key(caller: Caller, body: NewKey) -> dict[str, Any]:
    if not may(caller.user, MANAGE_KEYS, caller.team):
        raise not_found("team")
    terms = body.model_dump(exclude={"name", "expires_at"}, exclude_none=True)
    ends = _utc(body.expires_at) if body.expires_at else None
    try:
        key, secret = create_key(
            team=caller.team,
            user=caller.user,
            name=body.name,
            terms=Terms(**terms, expires_at=ends),
        )
    except KeyRefused as error:
        raise ApiError(400, str(error), code="invalid_value", param=error.field) from error
    return _key(key) | {"secret": secret}


def _revoke(caller: Caller, key_id: str) -> dict[str, Any]:
    wanted = uuid_or_none(key_id)
    key = keys_of(caller.team, viewer=caller.user).filter(pk=wanted).first() if wanted else None
    if key is None or not _may_revoke(caller, key):
        raise not_found("key")
    revoke_key(key=key, actor=caller.user)
    key.refresh_from_db()
    return _key(key)


def _may_revoke(caller: Caller, key: ApiKey) -> bool:
    """One's own, or any of the team's for those who manage its members."""
    own = key.created_by_id == caller.user.pk and may(caller.user, MANAGE_KEYS, caller.team)
    return own or may(caller.user, MANAGE_MEMBERS, caller.team)


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.pk,
        "name": key.name,
        "key": f"llm_{key.prefix}_…{key.last_four}",
        "created_by": key.created_by.email,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
        **asdict(Terms.of(key)),
    }


def _usage(caller: Caller, since: datetime | None, until: datetime | None) -> dict[str, Any]:
    end = _utc(until) if until else timezone.now()
    start = _utc(since) if since else end - timedelta(days=1)
    if not timedelta(0) <= end - start <= LONGEST:
        raise ApiError(
            400,
            "'since' lies before 'until', by 31 days at most.",
            code="invalid_value",
            param="since",
        )
    rows = hours(caller.team, viewer=caller.user, since=start).filter(hour__lt=end)
    names = ("hour", "model", "source", "jobs", "prompt_tokens", "completion_tokens")
    month = standing(caller.team)
    return {
        "month": {
            "limit": month.limit,
            "spent": month.spent,
            "reserved": month.reserved,
            "left": month.left,
        },
        "hours": list(rows.values(*names)),
    }


def _utc(moment: datetime) -> datetime:
    """Times without a zone are UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
