"""S2: whoever is removed, or whose session is ended elsewhere, stops reading within a second."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from tests.portal.playground.page import Page
from tests.portal.playground.test_sockets_obey_sign_in import closed_after
from tests.running import Running

LEAD, MATE = "lead@example.org", "mate@example.org"
TEAM = f"""
from portal.accounts.models import User
from portal.teams.models import Membership, Team
team = Team.objects.create(name="Watchers", kind="shared")
for email, role in (("{LEAD}", "owner"), ("{MATE}", "developer")):
    made = Membership.objects.create(team=team, user=User.objects.get(email=email), role=role)
print(team.pk, made.pk)
"""


@pytest.fixture(scope="module")
def people(running: Running) -> None:
    for email in (LEAD, MATE):
        running.make_key(email)


@pytest.fixture
async def lead(running: Running, people: None) -> AsyncIterator[Page]:
    async with Page(running.url) as page:
        yield await page.sign_in(LEAD)


@pytest.fixture
async def mate(running: Running, people: None) -> AsyncIterator[Page]:
    async with Page(running.url) as page:
        yield await page.sign_in(MATE)


async def post(page: Page, path: str, **form: str) -> None:
    sent = form | {"csrfmiddlewaretoken": page._token()}
    answer = await page.http.post(path, data=sent, headers={"Referer": page.url})
    assert answer.status_code == 302, answer.text


@pytest.mark.parametrize("how", ["removed", "the team is deleted"])
async def test_a_member_who_is_removed_stops_reading(
    running: Running, lead: Page, mate: Page, how: str
) -> None:
    team, membership = running.python(TEAM).split()
    for page in (lead, mate):
        await post(page, "/teams/choose", team=team)

    async def end() -> None:
        if how == "removed":
            await post(lead, f"/teams/members/{membership}/remove")
        else:
            await post(lead, "/teams/settings/delete", confirm="Watchers")

    assert await closed_after(mate, end) <= 1


async def test_a_session_that_is_ended_elsewhere_stops_reading(
    running: Running, lead: Page
) -> None:
    async with Page(running.url) as other:
        await other.sign_in(LEAD)
        shown = (await other.http.get("/accounts/sessions/")).text

        async def end() -> None:
            for number in re.findall(r"/accounts/sessions/(\d+)/end/", shown):
                await post(other, f"/accounts/sessions/{number}/end/")

        assert await closed_after(lead, end) <= 1
