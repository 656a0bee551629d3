"""What signing up means here; allauth calls it. It lives in teams, because teams know accounts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
import structlog
from allauth.account.adapter import DefaultAccountAdapter, get_adapter
from allauth.account.internal.emailkit import valid_email_or_none
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from portal import outbound
from portal.accounts.languages import note_language, spoken_by
from portal.accounts.models import User
from portal.accounts.selectors import by_email, has_operator, opens
from portal.accounts.services import claim_operator_link, make_operator
from portal.accounts.views import SESSION_TOKEN
from portal.network import UNKNOWN, is_from_this_machine, request_address
from portal.teams.farewell import cancel_deletion
from portal.teams.services import ensure_personal_team

logger = structlog.get_logger(__name__)
NOWHERE = "0.0.0.0"  # noqa: S104  (an address for those who have none: a unix socket's)


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
                note_language(user=user, language=get_language() or "")
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

    def login(self, request: HttpRequest, user: User) -> None:
        """Whoever signs in wants to keep the account."""
        if cancel_deletion(user=user):
            messages.success(request, _("Welcome back. Your account will not be deleted."))
        note_language(user=user, language=get_language() or "")
        super().login(request, user)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """In the reader's language: who asks for a letter may be somebody else."""
        with spoken_by(context.get("user") or by_email(email)):
            super().send_mail(template_prefix, email, context)

    def can_delete_email(self, email_address: Any) -> bool:
        """Never the one that signs in."""
        current: str = email_address.user.email
        return current.lower() != str(email_address.email).lower()

    def confirm_email(self, request: HttpRequest, email_address: Any) -> bool:
        """``False`` also when somebody else has the address by now, confirmed or not."""
        others = User.objects.filter(email__iexact=email_address.email)
        if others.exclude(pk=email_address.user_id).exists():
            messages.error(request, _("This address belongs to another account."))
            return False
        return bool(super().confirm_email(request, email_address))

    def get_client_ip(self, request: HttpRequest) -> str:
        """For rate limits and sessions: the same address as everywhere else, and never an error."""
        address = request_address(request)
        return NOWHERE if address == UNKNOWN else address


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """The same for people whom the operator's provider vouches for."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return settings.LLMASOS.oidc_signups or super().is_open_for_signup(request, sociallogin)

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None,
        extra_context: Any = None,
    ) -> None:  # fmt: skip
        """The person reads that it did not work; why is for the operator."""
        logger.warning("sign_in_provider_failed", code=str(error), error=str(exception or ""))

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> User:
        """We keep one name; not everybody has a first and a last one."""
        user: User = sociallogin.user
        both = (data.get("first_name"), data.get("last_name"))
        name = data.get("name") or " ".join(filter(None, both))
        user.name = str(name).replace("\0", "")[:120]
        user.email = (valid_email_or_none(data.get("email")) or "").lower()
        return user

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> User:
        with transaction.atomic():
            user: User = super().save_user(request, sociallogin, form)
            ensure_personal_team(user=user)
            if form is None:
                get_adapter()._make_operator(request, user)
        return user

    def get_requests_session(self) -> requests.Session:
        """To the world, and to the host that the setting names; nowhere else."""
        return outbound.session(named=urlsplit(settings.LLMASOS.oidc_url).hostname or "")
