"""Django's admin: for operators, through services, and audited."""

from __future__ import annotations

import pytest
from auditlog.models import LogEntry
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from portal.accounts.models import User
from portal.accounts.services import operator_link
from portal.catalogue.models import CatalogueModel
from portal.teams.models import ApiKey, Membership, Team
from portal.teams.services import create_key, is_key_live
from portal.usage.models import Budget
from portal.usage.selectors import standing

BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def desk(client: Client, operator: User) -> Client:
    client.force_login(operator, BACKEND)
    return client


def lists() -> list[str]:
    return sorted(
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        for model in admin.site._registry
    )


@pytest.mark.parametrize("path", lists())
def test_every_list_opens_for_operators_and_for_nobody_else(
    desk: Client, path: str, outsider: User, team: Team, echo: CatalogueModel
) -> None:
    create_key(team=team, user=team.memberships.get().user, name="one")
    operator_link()
    assert desk.get(path).status_code == 200
    assert Client().get(path).status_code == 302
    stranger = Client()
    stranger.force_login(outsider, BACKEND)
    assert stranger.get(path, follow=True).status_code == 403


def test_signing_in_to_the_admin_goes_through_the_same_door(client: Client, db: None) -> None:
    answer = client.get("/admin/login/?next=/admin/")
    assert answer.headers["Location"].startswith("/accounts/login/")


def test_secrets_are_not_shown(desk: Client, operator: User, member: User, team: Team) -> None:
    key, plaintext = create_key(team=team, user=member, name="one")
    page = desk.get(f"/admin/teams/apikey/{key.pk}/change/").content.decode()
    assert key.digest not in page
    assert plaintext not in page
    assert (
        member.password
        not in desk.get(f"/admin/accounts/user/{member.pk}/change/").content.decode()
    )


def test_keeping_somebody_out_is_audited_and_not_done_to_oneself(
    desk: Client, operator: User, outsider: User
) -> None:
    both = [operator.pk, outsider.pk]
    desk.post("/admin/accounts/user/", {"action": "disable", "_selected_action": both})
    outsider.refresh_from_db()
    operator.refresh_from_db()
    assert (outsider.is_active, operator.is_active) == (False, True)
    assert LogEntry.objects.get(object_pk=str(outsider.pk)).actor == operator


def test_placing_goes_through_the_service(desk: Client, echo: CatalogueModel) -> None:
    CatalogueModel.objects.filter(pk="echo").update(placement="off")
    desk.post("/admin/catalogue/cataloguemodel/echo/change/", {"placement": "always"})
    echo.refresh_from_db()
    assert echo.placement == "always"
    desk.post("/admin/catalogue/cataloguemodel/opt-125m/change/", {"placement": "always"})
    assert CatalogueModel.objects.get(pk="opt-125m").placement == "off"


def test_budgets_are_set_changed_and_lifted(desk: Client, team: Team) -> None:
    desk.post("/admin/usage/budget/add/", {"team": str(team.pk), "monthly_tokens": "500"})
    assert standing(team).limit == 500
    budget = Budget.objects.get()
    desk.post(f"/admin/usage/budget/{budget.pk}/change/", {"monthly_tokens": "600"})
    assert standing(team).limit == 600
    desk.post(f"/admin/usage/budget/{budget.pk}/delete/", {"post": "yes"})
    assert standing(team).limit is None


def test_revoking_a_key(desk: Client, member: User, team: Team) -> None:
    key, _ = create_key(team=team, user=member, name="one")
    desk.post("/admin/teams/apikey/", {"action": "revoke", "_selected_action": [str(key.pk)]})
    assert not is_key_live(key)
    assert ApiKey.objects.filter(pk=key.pk).exists()


def test_nothing_else_can_be_written(desk: Client, member: User, team: Team) -> None:
    membership = Membership.objects.get(team=team, user=member)
    path = f"/admin/teams/membership/{membership.pk}"
    assert desk.post(f"{path}/change/", {"role": "owner"}).status_code == 403
    assert desk.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    membership.refresh_from_db()
    assert membership.role == Membership.Role.DEVELOPER
