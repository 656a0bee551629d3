"""What signing up means here; allauth calls it. It lives in teams, because teams know accounts."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from portal.accounts.models import User
from portal.accounts.selectors import has_operator, opens
from portal.accounts.services import claim_operator_link, make_operator
from portal.accounts.views import SESSION_TOKEN
from portal.network import is_from_this_machine, request_address
from portal.teams.services import ensure_personal_team


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Every account gets its team with it; some become operators."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """An operator's link opens a closed door."""
        return settings.LLMASOS.signups or opens(request.session.get(SESSION_TOKEN, ""))

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        with transaction.atomic():
            user = super().save_user(request, user, form, commit)
            if commit:
                ensure_personal_team(user=user)
                if self._make_operator(request, user):
                    self.stash_verified_email(request, user.email)
        return user

    def _make_operator(self, request: HttpRequest, user: User) -> bool:
        token = request.session.pop(SESSION_TOKEN, None)
        if token is not None and claim_operator_link(token=token, user=user):
            return True
        if is_from_this_machine(request) and not has_operator():
            make_operator(user=user, actor=user)
            return True
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """For rate limits: the same address as everywhere else, and never an error."""
        return request_address(request)
